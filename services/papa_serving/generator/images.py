"""From samples to what a caller sees and what feedback needs."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

CONTENT_TYPE = "image/png"
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def to_pixels(samples: Tensor) -> NDArray[np.uint8]:
    """[−1, 1] to 0…255. Shape: [n, C, H, W]."""
    pixels: NDArray[np.uint8] = ((samples.clamp(-1, 1) + 1) * 127.5).round().byte().numpy()
    return pixels


def png(pixels: NDArray[np.uint8]) -> bytes:
    """One image. Shape: [C, H, W], C one of 1, 3, 4."""
    mode = _MODES[len(pixels)]
    image = Image.fromarray(pixels[0] if mode == "L" else np.ascontiguousarray(pixels.transpose(1, 2, 0)), mode)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
