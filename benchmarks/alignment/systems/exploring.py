"""This product's update where a share of what is shown comes from the backbone, as `generator.exploration` has it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from papa_serving.generator.generation import explored
from torch import Tensor

from benchmarks.alignment.systems.ours import Ours
from papa.config import UpdateConfig


@dataclass(frozen=True)
class ExploringConfig(UpdateConfig):
    """`exploration`: share of the shown items that the backbone draws without the adapter."""

    exploration: float = 0.2


class Exploring(Ours):
    """Shows some items from the backbone. Only the adapter's own samples are measured."""

    config: ExploringConfig

    def show(self, seeds: list[int]) -> Tensor:
        self.cost.plain += len(seeds) * self.sampling.steps
        unadapted = sorted(explored(len(seeds), self.config.exploration))
        adapted = sorted(set(range(len(seeds))) - set(unadapted))
        drawn = torch.empty(len(seeds), *self.denoiser.sample_shape)
        if unadapted:
            drawn[unadapted] = self.sample([seeds[i] for i in unadapted], None)
        if adapted:
            drawn[adapted] = self.draw([seeds[i] for i in adapted])
        return drawn
