"""The promotion gate: refuses updates that have damaged an adapter, before a user is served with it."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor

from papa.adapter import Adapter
from papa.config import UpdateConfig
from papa.denoiser import Denoiser, NotFiniteError
from papa.noise import Domain
from papa.sampler import sample
from papa.updating import UpdateStats
from papa_serving.settings import GateSettings
from papa_serving.trainer.updater import Refused

LOOKS_KEPT = 64
"""Number of prompts whose samples from the backbone are cached."""


@dataclass(frozen=True)
class Look:
    """Statistics of a handful of pictures: `distance` is the mean over pairs of √mean((a − b)²), `mean` and `deviation`
    are of all pixels."""

    distance: float
    mean: float
    deviation: float

    @classmethod
    def at(cls, samples: Tensor) -> Look:
        """Shape: [n ≥ 2, C, H, W] in [−1, 1]."""
        flat = samples.flatten(1)
        pairs = torch.pdist(flat) / math.sqrt(flat.shape[1])
        return cls(float(pairs.mean()), float(flat.mean()), float(flat.std()))


class Gate:
    """Compares each trained adapter with a fresh one and its samples with the backbone's, from the same fixed seeds.

    The bounds are wide: the samples of a user who likes a single class are much alike. The real images of single
    classes of Fashion-MNIST differ by 0.59 to 0.96 of what all of them do, deviate by 0.73 to 1.07 and shift by up to
    0.31; updates of the default size change an adapter by 0.8 to 1.2 of a fresh one's norm. The gate stops what no
    taste explains: numbers that are not finite, weights that jump, uniform grey, or the same picture for every seed. It
    judges decoded pictures also for latent backbones: latents of almost black pictures deviate like any others.
    """

    def __init__(self, denoiser: Denoiser, settings: GateSettings, config: UpdateConfig) -> None:
        self._denoiser = denoiser
        self._settings = settings
        self._adapt_from = config.adapt_from
        self._seeds = list(range(settings.probe_samples))
        self._fresh_norm = denoiser.layout.fresh_norm
        self._backbones: dict[str, Look] = {}

    def judge(self, trained: list[tuple[Adapter, UpdateStats]]) -> list[Refused | None]:
        """Returns a verdict per adapter; None lets it pass. Adapters with sound weights are sampled in one batch."""
        verdicts = [self._sound(adapter, stats) for adapter, stats in trained]
        passed = [index for index, verdict in enumerate(verdicts) if verdict is None]
        if passed and self._seeds:
            prompts = [_prompt(trained[index][0]) for index in passed]
            looks = self._probe(torch.stack([trained[index][0].weights for index in passed]), prompts)
            for index, prompt, look in zip(passed, prompts, looks, strict=True):
                verdicts[index] = self._sane(look, self._backbone(prompt))
        return verdicts

    def _sound(self, adapter: Adapter, stats: UpdateStats) -> Refused | None:
        norm, change = stats.norm / self._fresh_norm, stats.change / self._fresh_norm
        if not math.isfinite(stats.loss_first) or not math.isfinite(stats.loss_last):
            return Refused("loss", f"the loss went from {stats.loss_first:g} to {stats.loss_last:g}")
        if not bool(torch.isfinite(adapter.weights).all()):
            return Refused("weights", "the weights are not all finite")
        if norm > self._settings.max_norm:
            return Refused("norm", f"the norm is {norm:.2f} times that of a fresh adapter")
        if change > self._settings.max_change:
            return Refused("change", f"the change is {change:.2f} times the norm of a fresh adapter")
        return None

    def _sane(self, look: Look, backbone: Look) -> Refused | None:
        settings = self._settings
        if not math.isfinite(look.mean) or not math.isfinite(look.deviation):
            return Refused("pixels", "samples hold values that are not finite")
        if look.distance < settings.min_diversity * backbone.distance:
            return Refused(
                "diversity", f"samples differ by {look.distance:.3f}, the backbone's by {backbone.distance:.3f}"
            )
        if look.deviation < settings.min_contrast * backbone.deviation:
            return Refused(
                "pixels", f"pixels deviate by {look.deviation:.3f}, the backbone's by {backbone.deviation:.3f}"
            )
        if abs(look.mean - backbone.mean) > settings.max_shift:
            return Refused("pixels", f"the mean pixel is {look.mean:.3f}, the backbone's {backbone.mean:.3f}")
        return None

    def _backbone(self, prompt: str) -> Look:
        """The look at the backbone's own samples for that prompt, cached for recent prompts."""
        if prompt not in self._backbones:
            if len(self._backbones) == LOOKS_KEPT:
                del self._backbones[next(iter(self._backbones))]
            self._backbones[prompt] = self._probe(None, [prompt])[0]
        return self._backbones[prompt]

    def _probe(self, weights: Tensor | None, prompts: list[str]) -> list[Look]:
        """One look per prompt, with adapters or at the backbone. Shape: weights [len(prompts), P]."""
        adapters, count = None, len(prompts)
        if weights is not None:
            adapters = weights.repeat_interleave(len(self._seeds), dim=0).to(self._denoiser.device)
        conditions = self._denoiser.conditions([prompt for prompt in prompts for _ in self._seeds])
        samples = sample(
            self._denoiser, self._seeds * count, adapters, "ddim", self._settings.probe_steps, self._adapt_from,
            conditions=conditions, domain=Domain.PROBE,
        )  # fmt: skip
        return [self._look(part) for part in samples.split(len(self._seeds))]

    def _look(self, samples: Tensor) -> Look:
        """Looks at the pictures of one user; decoding clips them to [−1, 1], also those of unbounded latents."""
        with suppress(NotFiniteError):
            if bool(samples.isfinite().all()):
                return Look.at(self._denoiser.decode(samples).cpu())
        return Look.at(torch.full((len(samples), *self._denoiser.image_shape), math.nan))


def _prompt(adapter: Adapter) -> str:
    """The user's most recent prompt."""
    return adapter.replay.prompts[-1] if adapter.replay.prompts else ""
