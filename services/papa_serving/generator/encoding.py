"""Encodes the pixels of an image as the file that the caller asked for."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from papa_serving.contracts.generation import ImageEncoding

QUALITY = 90
"""Of lossy formats where the caller names none."""
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def encode(pixels: NDArray[np.uint8], encoding: ImageEncoding) -> bytes:
    """One image file. Shape: [C, H, W], C one of 1, 3, 4.

    An image whose longest edge is above `max_edge` is scaled down to it (Lanczos) and keeps its proportions.
    """
    mode = _MODES[len(pixels)]
    image = Image.fromarray(pixels[0] if mode == "L" else np.ascontiguousarray(pixels.transpose(1, 2, 0)), mode)
    if encoding.max_edge:
        image.thumbnail((encoding.max_edge, encoding.max_edge), Image.Resampling.LANCZOS)
    if encoding.format == "jpeg" and mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    buffer = io.BytesIO()
    lossy = {} if encoding.format == "png" else {"quality": encoding.quality or QUALITY}
    image.save(buffer, encoding.format, **lossy)
    return buffer.getvalue()


def content_type(encoding: ImageEncoding) -> str:
    """The media type of the files that `encode` makes."""
    return f"image/{encoding.format}"
