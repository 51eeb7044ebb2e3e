"""Decodes images of a caller's catalogue, within limits, into the shape that the backbone works in."""

from __future__ import annotations

import asyncio
import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from papa_serving.contracts.samples import pack_sample

FORMATS = ("PNG", "JPEG", "WEBP")
DECODERS = 2
_MODES = {1: "L", 3: "RGB"}


class BadPicture(ValueError):
    """The bytes are not an image that can be used; the message says why."""


def decode(data: bytes, shape: tuple[int, int, int], max_pixels: int, prompt: str = "") -> bytes:
    """Packs a uint8 sample of `shape` = [channels, height, width], channels 1 (grey) or 3 (RGB), with its prompt.

    The size is read from the header and refused before any pixel is decoded. The first frame counts; the orientation of
    the camera is applied; transparency shows white. Raises BadPicture.
    """
    channels, height, width = shape
    picture = _flattened(_loaded(data, max_pixels)).convert(_MODES[channels])
    resized = np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC), dtype=np.uint8)
    return pack_sample(resized.reshape(height, width, channels).transpose(2, 0, 1), prompt)


def _loaded(data: bytes, max_pixels: int) -> Image.Image:
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as header:
            if header.width * header.height > max_pixels:
                raise BadPicture(f"must have at most {max_pixels} pixels")
            header.load()
            return ImageOps.exif_transpose(header)
    except BadPicture:
        raise
    except Exception as error:  # whatever a decoder raises over a stranger's bytes, the bytes are at fault
        raise BadPicture("is not a complete PNG, JPEG or WebP image") from error


def _flattened(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I"):
        # 16 bits a pixel: Pillow's own conversion would cut off, not scale.
        values: NDArray[np.generic] = np.asarray(picture)
        return Image.fromarray((np.clip(values.astype(np.int64), 0, 65_535) >> 8).astype(np.uint8))
    if not picture.has_transparency_data:
        return picture
    coloured = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", coloured.size, "white"), coloured)


class PictureReader:
    """Decodes on a few threads beside the event loop."""

    def __init__(self, max_pixels: int) -> None:
        self._max_pixels = max_pixels
        self._pool = ThreadPoolExecutor(DECODERS, thread_name_prefix="pictures")

    async def read(self, data: bytes, shape: tuple[int, int, int], prompt: str = "") -> bytes:
        """Decodes as `decode` does."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, decode, data, shape, self._max_pixels, prompt)

    def close(self) -> None:
        """Ends the threads. Images that wait are not decoded any more."""
        self._pool.shutdown(wait=False, cancel_futures=True)
