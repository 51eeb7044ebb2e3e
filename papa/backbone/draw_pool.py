"""Draws a backbone's pool (papa.pool)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from papa.denoiser import Denoiser
from papa.noise import Domain
from papa.pixels import to_pixels
from papa.sampler import sample

_CHUNK = 64


@torch.no_grad()
def draw_pool(
    denoiser: Denoiser,
    count: int,
    sampler: str = "dpmpp_2m",
    steps: int = 12,
    progress: Callable[[int], None] | None = None,
) -> Tensor:
    """Draws `count` samples of the backbone alone, with the default sampler of items.

    The seeds 0 … are of the pool's own domain, so that no item begins from one of them. Shape: [count, C, H, W] uint8.

    Raises ValueError for a backbone of latents or of prompts, whose samples depend on what is asked for.
    """
    if denoiser.takes_prompt or not denoiser.clips:
        raise ValueError("only a backbone of pixels that takes no prompts has a pool")
    drawn = []
    for start in range(0, count, _CHUNK):
        seeds = list(range(start, min(start + _CHUNK, count)))
        drawn.append(to_pixels(sample(denoiser, seeds, None, sampler, steps, domain=Domain.POOL)))
        if progress is not None:
            progress(min(start + _CHUNK, count))
    return torch.cat(drawn)
