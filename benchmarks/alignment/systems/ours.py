"""This product's update, exactly as the trainer runs it."""

from __future__ import annotations

from torch import Tensor

from benchmarks.alignment.runs import Sampling
from benchmarks.alignment.systems.base import System, labels
from papa.adapter import Adapter, new_adapter
from papa.config import UpdateConfig
from papa.denoiser import Denoiser
from papa.updating import Labels, UpdateStats, update


class Ours(System):
    """LoRA, replay, stratified timesteps, bounded terms: papa.update with one configuration."""

    def __init__(self, denoiser: Denoiser, sampling: Sampling, seed: int, config: UpdateConfig) -> None:
        super().__init__(denoiser, sampling, seed)
        self.config, self.adapter = config, new_adapter(denoiser, seed)

    def draw(self, seeds: list[int]) -> Tensor:
        return self.sample(seeds, self.adapter.weights, self.config.adapt_from)

    def learn(self, shown: Tensor, grades: Tensor, step: int) -> None:
        self.adapter, _ = self.updated(self.given(shown, grades), self.config, step)

    def given(self, shown: Tensor, grades: Tensor) -> Labels:
        """The labels as the service stores them: pixels, or latents with their prompts."""
        if self.denoiser.clips:
            return labels(shown, grades)
        return Labels(shown.to(self.denoiser.sample_dtype), grades, (self.prompt,) * len(grades))

    def updated(self, given: Labels, config: UpdateConfig, step: int) -> tuple[Adapter, UpdateStats]:
        """The next adapter, not yet taken."""
        adapter, stats = update(self.denoiser, self.adapter, given, config, self.seed * 1000 + step)
        self.cost.differentiated += stats.differentiated
        self.cost.plain += stats.plain
        return adapter, stats
