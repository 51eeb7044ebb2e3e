"""The interface of all systems, and the system that learns nothing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor

from benchmarks.alignment.runs import Cost, Sampling
from papa.denoiser import Denoiser
from papa.pixels import to_pixels
from papa.sampler import sample
from papa.updating import Labels

CHUNK = 50


class System(ABC):
    """A model that shows items and learns from their labels. `cost` counts the evaluations of serving and learning,
    `prompt` is the prompt of all items, where the backbone takes one."""

    def __init__(self, denoiser: Denoiser, sampling: Sampling, seed: int) -> None:
        self.denoiser, self.sampling, self.seed = denoiser, sampling, seed
        self.cost, self.prompt = Cost(), ""

    @abstractmethod
    def draw(self, seeds: list[int]) -> Tensor:
        """Samples x0 of the present model. Shape: [len(seeds), C, H, W], pixels in [−1, 1] or latents."""

    @abstractmethod
    def learn(self, shown: Tensor, grades: Tensor, step: int) -> None:
        """Learns from the labels of one interaction step."""

    def show(self, seeds: list[int]) -> Tensor:
        """Samples items for the user and adds them to the cost."""
        self.cost.plain += len(seeds) * self.sampling.steps
        return self.draw(seeds)

    def figures(self) -> dict[str, Any]:
        """Further entries in the records of this system."""
        return {}

    def sample(self, seeds: list[int], adapter: Tensor | None, adapt_from: int = 0) -> Tensor:
        """Few-step samples with one adapter for all rows, in chunks."""
        parts = []
        for start in range(0, len(seeds), CHUNK):
            chunk = seeds[start : start + CHUNK]
            rows = None if adapter is None else adapter.expand(len(chunk), -1)
            asked = self.denoiser.conditions([self.prompt] * len(chunk))
            how = (self.sampling.sampler, self.sampling.steps)
            parts.append(sample(self.denoiser, chunk, rows, *how, adapt_from, conditions=asked))
        return torch.cat(parts)


class Base(System):
    """The backbone unchanged. Its samples are the same for every taste, so they are drawn once and cached."""

    _drawn: ClassVar[dict[tuple[str, Sampling, tuple[int, ...]], Tensor]] = {}

    def draw(self, seeds: list[int]) -> Tensor:
        key = (self.denoiser.backbone_hash, self.sampling, tuple(seeds))
        if key not in self._drawn:
            self._drawn[key] = self.sample(seeds, None)
        return self._drawn[key]

    def learn(self, shown: Tensor, grades: Tensor, step: int) -> None:
        return None


def labels(shown: Tensor, grades: Tensor) -> Labels:
    """The labels in the form that the library's updates take."""
    return Labels(to_pixels(shown), grades)
