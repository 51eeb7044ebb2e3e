"""The reference recipe (arXiv 2607.00486 and its released script): papa.reference, run as published or thinned.

As published: full parameters, per labelled sample one Adam step (lr 1e-5) on the loss summed over all timesteps in
[K, T), shown items sampled by all 1000 ancestral steps. Thinned: the sum is estimated by `timesteps` stratified ones
and items are shown by the few-step sampler that every other system uses; its cost is still counted as published,
since the estimate is ours and not the recipe's. With `script` it behaves as the released script does and not as the
formula says: see papa.reference.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from benchmarks.alignment.runs import Sampling
from benchmarks.alignment.systems.base import CHUNK, System, labels
from papa.denoiser import Denoiser
from papa.noise import Domain, Noise
from papa.reference import REFERENCE_PAPA, SCRIPT_PAPA, ReferenceTrainer
from papa.sampler import Rows
from papa.updating import Labels


@dataclass(frozen=True)
class ReferenceConfig:
    """`adapt_from` is K; `timesteps` 0 is all of them; `script` is the script's behaviour."""

    adapt_from: int = 400
    learning_rate: float = 1e-5
    timesteps: int = 0
    script: bool = False


class Reference(System):
    """`denoiser` is fine-tuned in place; `star` stays the backbone."""

    def __init__(
        self, denoiser: Denoiser, star: Denoiser, sampling: Sampling, seed: int, config: ReferenceConfig
    ) -> None:
        super().__init__(denoiser, sampling, seed)
        self.star, self.config = star, config
        recipe = replace(
            SCRIPT_PAPA if config.script else REFERENCE_PAPA,
            adapt_from=config.adapt_from,
            learning_rate=config.learning_rate,
            timesteps=config.timesteps or None,
        )
        self.recipe = recipe
        self.trainer = ReferenceTrainer(denoiser, star, recipe)
        self.random = Noise(seed, Domain.UPDATE)

    def show(self, seeds: list[int]) -> Tensor:
        self.cost.plain += len(seeds) * self.recipe.sampling_steps
        if self.config.timesteps:
            return self.draw(seeds)
        return self._draw(seeds, Sampling(self.recipe.sampler, self.recipe.sampling_steps))

    def draw(self, seeds: list[int]) -> Tensor:
        return torch.cat(
            [self._draw(seeds[start : start + CHUNK], self.sampling) for start in range(0, len(seeds), CHUNK)]
        )

    @torch.no_grad()
    def _draw(self, seeds: list[int], sampling: Sampling) -> Tensor:
        """θ for t ≥ K, the backbone below. The few-step sampler is every system's, and clips."""
        clip = self.recipe.clip or sampling == self.sampling
        noises = [Noise(seed) for seed in seeds]

        def noise() -> Tensor:
            return torch.stack([each.normal(self.denoiser.sample_shape) for each in noises])

        schedule = self.denoiser.schedule
        plan = schedule.plan(sampling.steps)
        rows = Rows.start(noise(), sampling.sampler, plan)
        for t in plan.tolist():
            model = self.denoiser if t >= self.trainer.first else self.star
            rows.advance(schedule, model.epsilon(rows.x, rows.t), noise() if sampling.sampler == "ddpm" else None, clip)
        return rows.x

    def learn(self, shown: Tensor, grades: Tensor, step: int) -> None:
        given = labels(shown, grades) if self.recipe.eight_bits else Labels(shown, grades)
        self.trainer.interaction_step(given, self.random)
        summed = self.denoiser.schedule.num_timesteps - self.trainer.first
        held = self.recipe.ranks if self.recipe.quality_at_last_timestep else summed
        self.cost.differentiated += len(grades) * summed
        self.cost.plain += len(grades) * held
