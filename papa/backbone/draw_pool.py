"""Draws a backbone's pool (papa.pool)."""

from __future__ import annotations

from collections.abc import Callable

import torch

from papa.denoiser import Denoiser
from papa.pixels import to_pixels
from papa.pool import FIRST_SEED, StoredPool
from papa.sampler import sample

_CHUNK = 64


@torch.no_grad()
def draw_pool(
    denoiser: Denoiser,
    count: int,
    sampler: str = "dpmpp_2m",
    steps: int = 12,
    progress: Callable[[int], None] | None = None,
) -> StoredPool:
    """Draws `count` samples of the backbone alone, from the seeds `papa.pool.FIRST_SEED` on, as items are by default.

    Raises ValueError for a backbone of latents or of prompts, whose samples depend on what is asked for.
    """
    if denoiser.takes_prompt or not denoiser.clips:
        raise ValueError("only a backbone of pixels that takes no prompts has a pool")
    drawn = []
    for start in range(0, count, _CHUNK):
        seeds = [FIRST_SEED + index for index in range(start, min(start + _CHUNK, count))]
        drawn.append(to_pixels(sample(denoiser, seeds, None, sampler, steps)))
        if progress is not None:
            progress(min(start + _CHUNK, count))
    return StoredPool(torch.cat(drawn), FIRST_SEED)
