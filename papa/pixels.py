"""Converts between pixels (0…255) and the x0 of a pixel backbone ([−1, 1])."""

from __future__ import annotations

from torch import Tensor


def to_x0(pixels: Tensor) -> Tensor:
    """x0 = pixels / 127.5 − 1. Shape: any, uint8 or float in 0…255 → float32 in [−1, 1]."""
    return pixels.float() / 127.5 - 1


def to_pixels(x0: Tensor) -> Tensor:
    """The nearest of 256 levels, after clipping to [−1, 1]. Shape: any → uint8, on the host."""
    return ((x0.clamp(-1, 1) + 1) * 127.5).round().byte().cpu()
