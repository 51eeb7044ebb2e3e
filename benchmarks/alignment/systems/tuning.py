"""The base of the LoRA baselines: one adapter, one Adam that lives as long as the run, one memory of labels."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.alignment.runs import Sampling
from benchmarks.alignment.systems.base import System
from papa.denoiser import Denoiser
from papa.noise import Domain, Noise
from papa.objective import squared_error
from papa.pixels import to_pixels, to_x0


class LoraSystem(System):
    """An adapter of the product's own layout, trained by a published method."""

    def __init__(self, denoiser: Denoiser, sampling: Sampling, seed: int, learning_rate: float) -> None:
        super().__init__(denoiser, sampling, seed)
        self.weights = denoiser.layout.initial(Noise(seed, Domain.ADAPTER)).requires_grad_()
        self.optimizer = torch.optim.Adam([self.weights], lr=learning_rate)
        self.random = Noise(seed, Domain.UPDATE)
        self.samples = torch.zeros(0, *denoiser.sample_shape)
        self.grades = torch.zeros(0)

    def draw(self, seeds: list[int]) -> Tensor:
        return self.sample(seeds, self.weights.detach())

    def remember(self, shown: Tensor, grades: Tensor) -> None:
        """Adds labels to those so far, quantised as the service would store the images."""
        self.samples = torch.cat([self.samples, to_x0(to_pixels(shown))])
        self.grades = torch.cat([self.grades, grades])

    def epsilon(self, x_t: Tensor, t: Tensor) -> Tensor:
        """ε_θ with the adapter, differentiable in its weights; counted."""
        self.cost.differentiated += len(x_t)
        return self.denoiser.epsilon(x_t, t, self.weights.expand(len(x_t), -1))

    def epsilon_star(self, x_t: Tensor, t: Tensor) -> Tensor:
        """ε of the backbone; counted."""
        self.cost.plain += len(x_t)
        with torch.no_grad():
            return self.denoiser.epsilon(x_t, t)

    def noised(self, x0: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(x_t, t, ε) at uniform timesteps."""
        t = self.random.integers(self.denoiser.schedule.num_timesteps, len(x0))
        noise = self.random.normal(x0.shape)
        return self.denoiser.schedule.add_noise(x0, noise, t), t, noise

    def errors(self, x0: Tensor) -> tuple[Tensor, Tensor]:
        """‖ε − ε_θ‖² and ‖ε − ε_θ*‖² of each sample at one random timestep. Shape: [n], [n]."""
        x_t, t, noise = self.noised(x0)
        return squared_error(noise, self.epsilon(x_t, t)), squared_error(noise, self.epsilon_star(x_t, t))

    def step(self, loss: Tensor) -> None:
        """One Adam step, gradients clipped to norm 1."""
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([self.weights], 1.0)
        self.optimizer.step()
