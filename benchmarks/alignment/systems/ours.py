"""This product's update, exactly as the trainer runs it."""

from __future__ import annotations

from torch import Tensor

from benchmarks.alignment.runs import Sampling
from benchmarks.alignment.systems.base import System, labels
from papa.config import UpdateConfig
from papa.denoiser import Denoiser
from papa.update import new_adapter, update


class Ours(System):
    """LoRA, replay, stratified timesteps, bounded terms: papa.update with one configuration."""

    def __init__(self, denoiser: Denoiser, sampling: Sampling, seed: int, config: UpdateConfig) -> None:
        super().__init__(denoiser, sampling, seed)
        self.config, self.adapter = config, new_adapter(denoiser, seed)

    def draw(self, seeds: list[int]) -> Tensor:
        return self.sample(seeds, self.adapter.weights, self.config.adapt_from)

    def learn(self, shown: Tensor, grades: Tensor, step: int) -> None:
        given = labels(shown, grades)
        self.adapter, stats = update(self.denoiser, self.adapter, given, self.config, self.seed * 1000 + step)
        self.cost.differentiated += stats.differentiated
        self.cost.plain += stats.plain
