"""Classifier guidance with no fine-tuning (Dhariwal & Nichol, arXiv 2105.05233): the cheapest rival.

A small classifier of noisy images, p(liked | x_t, t), is fitted to all labels so far; sampling uses
ε̂ = ε − s √(1 − ᾱ_t) ∇_x log p(liked | x_t, t). The backbone is never differentiated.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.alignment.runs import Sampling
from benchmarks.alignment.systems.base import CHUNK, System
from papa.denoiser import Denoiser
from papa.noise import Domain, Noise, seed_torch
from papa.pixels import to_pixels, to_x0
from papa.sampler import Rows


@dataclass(frozen=True)
class GuidanceConfig:
    """`scale` is s."""

    scale: float = 8.0
    fit_steps: int = 150
    rows: int = 128
    learning_rate: float = 2e-3


class NoisyClassifier(nn.Module):
    """p(liked | x_t, t): three strided convolutions, each shifted and scaled by an embedding of ᾱ_t."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        widths = (channels, 32, 64, 64)
        self.convolutions = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in pairwise(widths))
        self.time = nn.ModuleList(nn.Linear(2, 2 * width) for width in widths[1:])
        self.head = nn.LazyLinear(1)

    def forward(self, x: Tensor, alpha_bar: Tensor) -> Tensor:
        """Logits. Shape: x [n, C, H, W], alpha_bar [n, 1, 1, 1] → [n]."""
        told = torch.cat([alpha_bar.flatten(1), (1 - alpha_bar).flatten(1).sqrt()], dim=1)
        for convolution, time in zip(self.convolutions, self.time, strict=True):
            scale, shift = time(told)[:, :, None, None].chunk(2, dim=1)
            x = F.silu(convolution(x) * (1 + scale) + shift)
        out: Tensor = self.head(x.flatten(1))[:, 0]
        return out


class ClassifierGuidance(System):
    def __init__(self, denoiser: Denoiser, sampling: Sampling, seed: int, config: GuidanceConfig) -> None:
        super().__init__(denoiser, sampling, seed)
        self.config = config
        self.random = Noise(seed, Domain.UPDATE)
        seed_torch(seed, Domain.TRAINING)
        self.classifier = NoisyClassifier(denoiser.sample_shape[0])
        self.classifier(torch.zeros(1, *denoiser.sample_shape), torch.ones(1, 1, 1, 1))
        self.fitting = torch.optim.AdamW(self.classifier.parameters(), lr=config.learning_rate, weight_decay=1e-2)
        self.samples, self.liked = torch.zeros(0, *denoiser.sample_shape), torch.zeros(0)

    def learn(self, shown: Tensor, grades: Tensor, step: int) -> None:
        self.samples = torch.cat([self.samples, to_x0(to_pixels(shown))])
        self.liked = torch.cat([self.liked, (grades > 0).float()])
        schedule, share = self.denoiser.schedule, self.liked.mean()
        balance = 0.5 / torch.where(self.liked > 0, share, 1 - share).clamp(min=0.05)
        for _ in range(self.config.fit_steps):
            rows = self.random.integers(len(self.liked), self.config.rows)
            t = self.random.integers(schedule.num_timesteps, len(rows))
            shift = (self.random.integers(5, 2) - 2).tolist()
            x0 = torch.roll(self.samples[rows], shift, dims=(2, 3))
            x_t = schedule.add_noise(x0, self.random.normal(x0.shape), t)
            logits = self.classifier(x_t, schedule.signal(t, x_t))
            loss = F.binary_cross_entropy_with_logits(logits, self.liked[rows], balance[rows])
            self.fitting.zero_grad()
            loss.backward()
            self.fitting.step()

    def draw(self, seeds: list[int]) -> Tensor:
        return torch.cat([self._draw(seeds[start : start + CHUNK]) for start in range(0, len(seeds), CHUNK)])

    def _draw(self, seeds: list[int]) -> Tensor:
        shape, schedule = self.denoiser.sample_shape, self.denoiser.schedule
        x = torch.stack([Noise(seed).normal(shape) for seed in seeds])
        plan = schedule.plan(self.sampling.steps)
        rows = Rows.start(x, self.sampling.sampler, plan)
        for _ in plan:
            alpha_bar = schedule.signal(rows.t, rows.x)
            with torch.no_grad():
                eps = self.denoiser.epsilon(rows.x, rows.t)
            if len(self.liked):
                eps = eps - self.config.scale * (1 - alpha_bar).sqrt() * self._pull(rows.x, alpha_bar)
            rows.advance(schedule, eps, None, clip=True)
        return rows.x

    def _pull(self, x: Tensor, alpha_bar: Tensor) -> Tensor:
        """∇_x log p(liked | x_t, t)."""
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(F.logsigmoid(self.classifier(x, alpha_bar)).sum(), x)
        return gradient
