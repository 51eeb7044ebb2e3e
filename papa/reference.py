"""The reference recipe, as a preset: the paper's released script without its faults (arXiv 2607.00486).

Full-parameter fine-tuning; per labelled sample one Adam step on the loss summed over all timesteps in [K, T) with one
shared noise draw; only the newest samples, no replay. The sum is computed in chunks whose gradients add up to the
same step. One fault is kept as a switch, `quality_at_last_timestep`: the script evaluates L^QPDE only at the last
timestep of its loop, while the formula sums it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from papa.denoiser import Denoiser
from papa.noise import Noise
from papa.objective import papa_loss, quality_loss, stratified_timesteps
from papa.pixels import to_x0
from papa.updating import Labels


@dataclass(frozen=True)
class ReferenceRecipe:
    """The script's settings; `adapt_from` is K."""

    adapt_from: int = 0
    gamma: float = 0.1
    eta: float = 0.009
    learning_rate: float = 1e-5
    samples_per_step: int = 10
    sampler: str = "ddpm"
    sampling_steps: int = 1000
    quality_at_last_timestep: bool = False
    timesteps: int | None = None
    """None sums over all of [K, T), as published; m estimates the sum by m stratified timesteps per sample."""
    chunk: int = 100


REFERENCE_PAPA = ReferenceRecipe()
REFERENCE_EPAPA = ReferenceRecipe(adapt_from=400)


class ReferenceTrainer:
    """Fine-tunes `model` in place against the frozen `star`; Adam lives as long as the trainer, as in the script.

    Raises ValueError for a K outside [0, T).
    """

    def __init__(self, model: Denoiser, star: Denoiser, recipe: ReferenceRecipe) -> None:
        model.schedule.check_adapt_from(recipe.adapt_from)
        self.model, self.star, self.recipe = model, star, recipe
        parameters: Iterable[nn.Parameter] = model.model.requires_grad_(True).parameters()
        self.optimizer = torch.optim.Adam(parameters, lr=recipe.learning_rate)

    def interaction_step(self, labels: Labels, random: Noise) -> float:
        """One optimiser step per labelled sample, in order; returns the mean loss."""
        losses = []
        for sample, grade in zip(labels.samples, labels.grades, strict=True):
            x0 = to_x0(sample[None]) if sample.dtype == torch.uint8 else sample[None].float()
            self.optimizer.zero_grad()
            noise = random.normal(x0.shape)
            losses.append(self._accumulate(x0, grade, noise, self._timesteps(random)))
            self.optimizer.step()
        return sum(losses) / len(losses)

    def _timesteps(self, random: Noise) -> Tensor:
        low, high = self.recipe.adapt_from, self.model.schedule.num_timesteps
        if self.recipe.timesteps is None:
            return torch.arange(low, high)
        return stratified_timesteps(low, high, (1, self.recipe.timesteps), random)[0]

    def _accumulate(self, x0: Tensor, grade: Tensor, noise: Tensor, timesteps: Tensor) -> float:
        total = 0.0
        scale = (self.model.schedule.num_timesteps - self.recipe.adapt_from) / len(timesteps)
        for t in timesteps.split(self.recipe.chunk):
            shape = (len(t), *x0.shape[1:])
            loss = scale * self._loss(x0.expand(shape), noise.expand(shape), t, grade.expand(len(t))).sum()
            loss.backward()
            total += float(loss.detach())
        return total

    def _loss(self, x0: Tensor, eps: Tensor, t: Tensor, grade: Tensor) -> Tensor:
        schedule, recipe = self.model.schedule, self.recipe
        x_t = schedule.add_noise(x0, eps, t)
        eps_theta = self.model.epsilon(x_t, t)
        with torch.no_grad():
            eps_star = self.star.epsilon(x_t, t)
        weight = schedule.loss_weights()[t].float()
        if not recipe.quality_at_last_timestep:
            return papa_loss(eps, eps_theta, eps_star, weight, grade, recipe.gamma, recipe.eta)
        preference = papa_loss(eps, eps_theta, eps_star, weight, grade, recipe.gamma, eta=0.0)
        return preference + recipe.eta * (t == schedule.num_timesteps - 1) * quality_loss(eps_theta, eps_star, grade)
