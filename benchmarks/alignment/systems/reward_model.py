"""The reward-model baseline: a small CNN fitted to the collected labels, then reward-weighted fine-tuning.

After Lee et al., arXiv 2302.12192: the reward predicts the label, and the denoising loss of samples is weighted by
it. Each interaction step fits the CNN to all labels so far, lets it judge unlabelled samples of the present model
beside the labelled ones, and fine-tunes the adapter on the loss weighted by the predicted chance of a like.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.alignment.runs import Sampling
from benchmarks.alignment.systems.tuning import LoraSystem
from papa.denoiser import Denoiser
from papa.noise import Domain, seed_torch
from papa.objective import squared_error


@dataclass(frozen=True)
class RewardConfig:
    """`unlabelled` samples of the model are judged per interaction step; the newest `pool` of them are kept."""

    unlabelled: int = 20
    pool: int = 200
    fit_steps: int = 60
    learning_rate: float = 1.6e-2
    steps: int = 6
    rows: int = 32


def reward_cnn(channels: int) -> nn.Module:
    """Three strided convolutions and a linear layer: a logit of "liked"."""
    return nn.Sequential(
        nn.Conv2d(channels, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(),
        nn.Conv2d(32, 32, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.LazyLinear(1), nn.Flatten(0),
    )  # fmt: skip


class RewardModel(LoraSystem):
    def __init__(self, denoiser: Denoiser, sampling: Sampling, seed: int, config: RewardConfig) -> None:
        super().__init__(denoiser, sampling, seed, config.learning_rate)
        self.config = config
        seed_torch(seed, Domain.TRAINING)
        self.reward = reward_cnn(denoiser.sample_shape[0])
        self.reward(torch.zeros(1, *denoiser.sample_shape))
        self.fitting = torch.optim.AdamW(self.reward.parameters(), lr=2e-3, weight_decay=1e-2)
        self.pool = torch.zeros(0, *denoiser.sample_shape)

    def learn(self, shown: Tensor, grades: Tensor, step: int) -> None:
        self.remember(shown, grades)
        self._fit()
        first = 77_000_003 * (self.seed + 1) + 1000 * step
        drawn = self.show(list(range(first, first + self.config.unlabelled)))
        self.pool = torch.cat([self.pool, drawn.clamp(-1, 1)])[-self.config.pool :]
        judged = torch.cat([self.samples, self.pool])
        with torch.no_grad():
            weights = torch.sigmoid(self.reward(judged))
        for _ in range(self.config.steps):
            rows = self.random.choice(weights + 1e-6, self.config.rows)
            x_t, t, noise = self.noised(judged[rows])
            self.step(squared_error(noise, self.epsilon(x_t, t)).mean())

    def _fit(self) -> None:
        target = (self.grades > 0).float()
        weight = 0.5 / torch.where(target > 0, target.mean(), 1 - target.mean()).clamp(min=0.05)
        for _ in range(self.config.fit_steps):
            rows = self.random.integers(len(target), 64)
            shift = (self.random.integers(5, 2) - 2).tolist()
            x = torch.roll(self.samples[rows], shift, dims=(2, 3))
            loss = F.binary_cross_entropy_with_logits(self.reward(x), target[rows], weight[rows])
            self.fitting.zero_grad()
            loss.backward()
            self.fitting.step()
