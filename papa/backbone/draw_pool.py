"""Draws a backbone's pool (papa.pool)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from papa.denoiser import Denoiser
from papa.pixels import to_pixels
from papa.sampler import sample

FIRST_SEED = 1 << 48
"""Seeds from here on are reserved for the pool. Nothing that is shown or measured uses them."""
_CHUNK = 64


@torch.no_grad()
def draw_pool(
    denoiser: Denoiser,
    count: int,
    sampler: str = "dpmpp_2m",
    steps: int = 12,
    progress: Callable[[int], None] | None = None,
) -> Tensor:
    """Draws `count` samples of the backbone alone, with the default sampler of items. Shape: [count, C, H, W] uint8.

    Raises ValueError for a backbone of latents or of prompts, whose samples depend on what is asked for.
    """
    if denoiser.takes_prompt or not denoiser.clips:
        raise ValueError("only a backbone of pixels that takes no prompts has a pool")
    drawn = []
    for start in range(0, count, _CHUNK):
        seeds = list(range(FIRST_SEED + start, FIRST_SEED + min(start + _CHUNK, count)))
        drawn.append(to_pixels(sample(denoiser, seeds, None, sampler, steps)))
        if progress is not None:
            progress(min(start + _CHUNK, count))
    return torch.cat(drawn)
