"""The reference recipe, as presets (arXiv 2607.00486): the formula, and the paper's released script as it behaves.

Full-parameter fine-tuning; per labelled sample one Adam step on the loss summed over all timesteps in [K, T); only the
newest samples, no replay. The sum is computed in chunks whose gradients add up to the same step.

| | formula | script |
|---|---|---|
| noise draws of a step | one | one for each of eight data-parallel processes, which share the timesteps |
| L^QPDE | at every timestep | at the last timestep of each process: eight |
| x0 in the ancestral sampler | clipped | not clipped |
| shown samples | rounded to 8 bits | as they were drawn |

At t = 0 the script's index wraps around and w_0 is about 1e-4. That is a slip which is not copied: both presets take
w_0 of the bound (`NoiseSchedule.loss_weights`), 4.7 % of Σ w_t where K = 0; with K = 400 there is no difference.

The script's η of 0.009 belongs to eight timesteps. Summed over 600 it is 75 times as stiff and ties the model to the
backbone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from papa.denoiser import Denoiser
from papa.noise import Noise
from papa.objective import enhancer_loss, likes_loss, quality_loss, stratified_timesteps
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
    ranks: int = 1
    """Processes among which the timesteps are dealt in turn, each with a noise draw of its own; their gradients are
    averaged."""
    quality_at_last_timestep: bool = False
    """L^QPDE only at the last timestep of each process, where alone θ* is then evaluated."""
    clip: bool = True
    """Whether the sampler clips x0."""
    eight_bits: bool = True
    """Whether shown samples are rounded to 8 bits before they are learnt from."""
    timesteps: int | None = None
    """None sums over all of [K, T), as published; m estimates the sum by m stratified timesteps per sample."""
    chunk: int = 100


REFERENCE_PAPA = ReferenceRecipe()
REFERENCE_EPAPA = ReferenceRecipe(adapt_from=400)
SCRIPT_PAPA = ReferenceRecipe(ranks=8, quality_at_last_timestep=True, clip=False, eight_bits=False)
SCRIPT_EPAPA = replace(SCRIPT_PAPA, adapt_from=400)


class ReferenceTrainer:
    """Fine-tunes `model` in place against the frozen `star`; Adam lives as long as the trainer, as in the script.

    Raises ValueError for a K outside [0, T), and for fewer timesteps than processes.
    """

    def __init__(self, model: Denoiser, star: Denoiser, recipe: ReferenceRecipe) -> None:
        self.first = model.schedule.adapted_from(recipe.adapt_from)
        available = recipe.timesteps or model.schedule.num_timesteps - self.first
        if available < recipe.ranks:
            raise ValueError(f"{available} timesteps cannot be dealt to {recipe.ranks} processes")
        self.model, self.star, self.recipe = model, star, recipe
        parameters: Iterable[nn.Parameter] = model.model.requires_grad_(True).parameters()
        self.optimizer = torch.optim.Adam(parameters, lr=recipe.learning_rate)

    def interaction_step(self, labels: Labels, random: Noise) -> float:
        """One optimiser step per labelled sample, in order; returns the mean loss."""
        losses = []
        for sample, grade in zip(labels.samples, labels.grades, strict=True):
            x0 = to_x0(sample[None]) if sample.dtype == torch.uint8 else sample[None].float()
            self.optimizer.zero_grad()
            noises = [random.normal(x0.shape) for _ in range(self.recipe.ranks)]
            dealt = self._dealt(random)
            losses.append(sum(self._accumulate(x0, grade, *own) for own in zip(noises, dealt, strict=True)))
            self.optimizer.step()
        return sum(losses) / len(losses)

    def _dealt(self, random: Noise) -> list[Tensor]:
        """The timesteps of each process, ascending."""
        low, high = self.first, self.model.schedule.num_timesteps
        timesteps = torch.arange(low, high)
        if self.recipe.timesteps is not None:
            timesteps = stratified_timesteps(low, high, (1, self.recipe.timesteps), random)[0]
        return [timesteps[rank :: self.recipe.ranks] for rank in range(self.recipe.ranks)]

    def _accumulate(self, x0: Tensor, grade: Tensor, noise: Tensor, timesteps: Tensor) -> float:
        """Adds one process's share of the gradient, and returns its share of the loss."""
        total = 0.0
        for t in timesteps.split(self.recipe.chunk):
            shape = (len(t), *x0.shape[1:])
            loss = self._loss(x0.expand(shape), noise.expand(shape), t, grade.expand(len(t)), int(timesteps[-1]))
            loss = loss / self.recipe.ranks
            loss.backward()
            total += float(loss.detach())
        return total

    def _loss(self, x0: Tensor, eps: Tensor, t: Tensor, grade: Tensor, last: int) -> Tensor:
        """The sum over `t`, where that is an estimate scaled to all timesteps."""
        schedule, recipe = self.model.schedule, self.recipe
        summed = schedule.num_timesteps - self.first
        scale = 1.0 if recipe.timesteps is None else summed / recipe.timesteps
        x_t = schedule.add_noise(x0, eps, t)
        eps_theta = self.model.epsilon(x_t, t)
        weight = schedule.loss_weights()[t].float()
        preference = likes_loss(eps, eps_theta, weight, grade) + enhancer_loss(eps, eps_theta, weight, grade)
        held = (t == last).nonzero()[:, 0] if recipe.quality_at_last_timestep else torch.arange(len(t))
        quality = torch.zeros(())
        if len(held):
            with torch.no_grad():
                eps_star = self.star.epsilon(x_t[held], t[held])
            quality = quality_loss(eps_theta[held], eps_star, grade[held]).sum()
        # At the last timesteps alone it is no estimate of a sum.
        quality_scale = 1.0 if recipe.quality_at_last_timestep else scale
        return recipe.gamma * scale * preference.sum() + recipe.eta * quality_scale * quality
