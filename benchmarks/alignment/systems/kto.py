"""Diffusion-KTO (Li et al., arXiv 2404.04465): the utility of each binary label against the backbone, no pairs.

Maximises E[U(w(y) (β (g − z)))] with g = ‖ε − ε_θ*‖² − ‖ε − ε_θ‖² (the implicit reward up to T), U the sigmoid
("Kahneman- Tversky") utility, w = ±1, and z = max(0, mean g over the batch), the estimate of the KL term, without
gradient. The only difference from the paper is replay: a batch draws as many likes as dislikes from all labels so far,
where the paper has one fixed data set.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.alignment.runs import Sampling
from benchmarks.alignment.systems.tuning import LoraSystem
from papa.denoiser import Denoiser


@dataclass(frozen=True)
class KtoConfig:
    """`beta` in units of 1 / (mean squared error), as β T of the paper."""

    beta: float = 500.0
    learning_rate: float = 1.6e-2
    steps: int = 6
    rows: int = 32


class DiffusionKto(LoraSystem):
    def __init__(self, denoiser: Denoiser, sampling: Sampling, seed: int, config: KtoConfig) -> None:
        super().__init__(denoiser, sampling, seed, config.learning_rate)
        self.config = config

    def learn(self, shown: Tensor, grades: Tensor, step: int) -> None:
        self.remember(shown, grades)
        for _ in range(self.config.steps):
            x0, sign = self._batch()
            error, error_star = self.errors(x0)
            gain = error_star - error
            reference = gain.detach().mean().clamp(min=0)
            self.step(-torch.sigmoid(sign * self.config.beta * (gain - reference)).mean())

    def _batch(self) -> tuple[Tensor, Tensor]:
        liked = self.grades > 0
        kinds = [kind for kind in (liked, ~liked) if bool(kind.any())]
        count = self.config.rows // len(kinds)
        rows = torch.cat([self.random.choice(kind.float(), count) for kind in kinds])
        return self.samples[rows], self.grades[rows].sign()
