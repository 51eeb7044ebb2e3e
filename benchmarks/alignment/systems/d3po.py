"""D3PO (Yang et al., arXiv 2311.13231): DPO on every denoising step of shown trajectories, no reward model.

A trajectory is sampled ancestrally, x_{t'} ~ N(μ_θ(x_t, t), σ_t²). For each pair (liked a, disliked b) of an
interaction step and each denoising step: loss = −log σ(β [log π_θ/π_ref (a) − log π_θ/π_ref (b)]), with log π up to a
constant −‖x_{t'} − μ‖² / (2 σ²), summed over pixels, and the ratio clipped as in the authors' code (±0.1 on the
ratio, here on its logarithm). π_ref is the model before the step's update, refreshed every step of the loop, as
online D3PO does.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.alignment.runs import Sampling
from benchmarks.alignment.systems.tuning import LoraSystem
from papa.denoiser import Denoiser
from papa.noise import Noise
from papa.sampler import predict_x0
from papa.schedule import CLEAN


@dataclass(frozen=True)
class D3poConfig:
    """`pairs` of an interaction step, each trained on all `sampling_steps` but the last, in `passes` passes."""

    beta: float = 0.1
    learning_rate: float = 8e-3
    sampling_steps: int = 20
    pairs: int = 10
    passes: int = 1
    clip: float = 5.0


class D3po(LoraSystem):
    def __init__(self, denoiser: Denoiser, sampling: Sampling, seed: int, config: D3poConfig) -> None:
        super().__init__(denoiser, sampling, seed, config.learning_rate)
        self.config = config
        self.plan = [*denoiser.schedule.plan(config.sampling_steps).tolist(), CLEAN]
        self.trajectory: list[Tensor] = []

    def show(self, seeds: list[int]) -> Tensor:
        noises = [Noise(seed) for seed in seeds]

        def draw() -> Tensor:
            return torch.stack([each.normal(self.denoiser.sample_shape) for each in noises])

        x = draw()
        self.trajectory = [x]
        with torch.no_grad():
            for t, t_next in zip(self.plan[:-1], self.plan[1:], strict=True):
                mean, deviation = self._policy(x, t, t_next, self.weights.detach())
                x = mean + deviation * draw()
                self.trajectory.append(x)
        self.cost.plain += len(seeds) * self.config.sampling_steps
        return x

    def learn(self, shown: Tensor, grades: Tensor, step: int) -> None:
        liked, disliked = (grades > 0).nonzero()[:, 0], (grades < 0).nonzero()[:, 0]
        if not len(liked) or not len(disliked):
            return
        pairs = torch.cartesian_prod(liked, disliked)
        pairs = pairs[self.random.permutation(len(pairs))[: self.config.pairs]]
        reference = self.weights.detach().clone()
        for _ in range(self.config.passes):
            for index in self.random.permutation(self.config.sampling_steps - 1).tolist():
                gain = self._gain(index, pairs.T.flatten(), reference)
                margin = gain[: len(pairs)] - gain[len(pairs) :]
                self.step(-F.logsigmoid(self.config.beta * margin).mean())

    def _gain(self, index: int, rows: Tensor, reference: Tensor) -> Tensor:
        """log π_θ / π_ref of one denoising step of the rows."""
        needed, inverse = rows.unique(return_inverse=True)
        x, x_next = self.trajectory[index][needed], self.trajectory[index + 1][needed]
        t, t_next = self.plan[index], self.plan[index + 1]
        mean, deviation = self._policy(x, t, t_next, self.weights)
        with torch.no_grad():
            mean_ref, _ = self._policy(x, t, t_next, reference)
        self.cost.differentiated += len(needed)
        self.cost.plain += len(needed)
        closer = (x_next - mean_ref).square() - (x_next - mean).square()
        gain = closer.flatten(1).sum(dim=1) / (2 * deviation**2)
        return gain.clamp(-self.config.clip, self.config.clip)[inverse]

    def _policy(self, x: Tensor, t: float, t_next: float, weights: Tensor) -> tuple[Tensor, float]:
        """μ and σ of ancestral sampling from t to t_next (arXiv 2006.11239, eq. 7, for a coarser plan)."""
        times = torch.full((len(x),), t)
        eps = self.denoiser.epsilon(x, times, weights.expand(len(x), -1))
        levels = torch.tensor([t, t_next], dtype=torch.float64)
        now, later = self.denoiser.schedule.signal(levels, levels).tolist()
        x0 = predict_x0(x, eps, torch.tensor(now).sqrt(), (1 - torch.tensor(now)).sqrt(), clip=True)
        alpha = now / later
        mean = (later**0.5 * (1 - alpha) * x0 + alpha**0.5 * (1 - later) * x) / (1 - now)
        return mean, ((1 - alpha) * (1 - later) / (1 - now)) ** 0.5
