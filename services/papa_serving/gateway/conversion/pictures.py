"""Decodes pictures of a caller's catalogue, within limits, into the shape and colours that the backbone works in."""

from __future__ import annotations

import io
import re
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from papa_serving.contracts.samples import pack_sample
from papa_serving.gateway.conversion.colour import Colours
from papa_serving.gateway.conversion.metadata import without_metadata

FORMATS = ("PNG", "JPEG", "WEBP")
"""All that is decoded; of an animation the first frame."""
_SIGNATURES = re.compile(rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|RIFF....WEBP", re.DOTALL)
BACKGROUND = "white"
"""The colour behind transparent pixels."""
MAX_SCANS = 64
"""Scans of a progressive JPEG. Encoders write 10 to 20; each costs a pass over all pixels, however few bytes it has."""
_MODES = {1: "L", 3: "RGB"}
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_START_OF_SCAN, _WITHOUT_LENGTH = 0xDA, (0x01, 0xD8)
# In the data of a scan 0xFF is followed by 0 (a stuffed byte), by a restart marker (D0 to D7), by another 0xFF that
# fills, or by the marker of the next segment.
_NEXT_MARKER = re.compile(rb"\xff+([\x01-\xcf\xd8-\xfe])")
INCOMPLETE = "is not a complete PNG, JPEG or WebP image"


class BadPicture(ValueError):
    """The bytes are not an image that can be used; the message says why."""


def begins_as_picture(data: bytes) -> bool:
    """Whether the bytes begin as a file of FORMATS does: all that can be said of a picture without decoding it."""
    return _SIGNATURES.match(data) is not None


def decode(data: bytes, shape: tuple[int, int, int], max_pixels: int, prompt: str = "") -> bytes:
    """Packs a uint8 sample of `shape` = [channels, height, width], channels 1 (grey) or 3 (sRGB), with its prompt.

    Size and scans are read from the headers and refused before any pixel is decoded. The first frame counts; the
    orientation of the camera is applied; transparency shows BACKGROUND; colours are converted to sRGB as the file
    describes them, see papa_serving.gateway.conversion.colour. Raises BadPicture.
    """
    channels, height, width = shape
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata, which no operator can mend
            picture, colours = _whole(data, max_pixels)
        resized = picture.resize((width, height), Image.Resampling.BICUBIC)
        # After the resizing: of a few pixels the conversion costs nothing, whatever profile a stranger sends.
        pixels = np.asarray(colours.in_srgb(resized).convert(_MODES[channels]), dtype=np.uint8)
    except BadPicture:
        raise
    except Exception as error:  # whatever a decoder raises over a stranger's bytes, the bytes are at fault
        raise BadPicture(INCOMPLETE) from error
    return pack_sample(pixels.reshape(height, width, channels).transpose(2, 0, 1), prompt)


def _whole(data: bytes, max_pixels: int) -> tuple[Image.Image, Colours]:
    """Loads the picture; if that fails, tries again without metadata, which may be the only broken part."""
    try:
        return _loaded(data, max_pixels)
    except BadPicture:
        raise
    except Exception:
        return _loaded(without_metadata(data), max_pixels)


def _loaded(data: bytes, max_pixels: int) -> tuple[Image.Image, Colours]:
    """The upright picture without transparency, of mode L, RGB or CMYK, and what its colours mean."""
    with Image.open(io.BytesIO(data), formats=FORMATS) as header:
        if header.width * header.height > max_pixels:
            raise BadPicture(f"must have at most {max_pixels} pixels")
        if data.startswith(b"\xff\xd8"):
            _check_scans(data)
        layout = _layout(header)
        header.load()
        return _upright(_flattened(header, layout), header), Colours.of(header)


def _check_scans(jpeg: bytes) -> None:
    """Raises BadPicture for more than MAX_SCANS; reads markers alone."""
    scans, marker = 0, _NEXT_MARKER.search(jpeg, 2)
    while marker is not None:
        kind, end = marker[1][0], marker.end()
        scans += kind == _START_OF_SCAN
        if scans > MAX_SCANS:
            raise BadPicture(f"must have at most {MAX_SCANS} scans")
        length = 0 if kind in _WITHOUT_LENGTH else int.from_bytes(jpeg[end : end + 2], "big")
        marker = _NEXT_MARKER.search(jpeg, end + length)


def _layout(header: Image.Image) -> str:
    """How a PNG file lays out a pixel, for instance "L;2" or "RGB;16B"; known before it is loaded."""
    tiles = getattr(header, "tile", None)
    layout = tiles[0][3] if header.format == "PNG" and tiles else ""
    return layout if isinstance(layout, str) else ""


def _flattened(picture: Image.Image, layout: str) -> Image.Image:
    """Composites transparency on BACKGROUND."""
    transparent = picture.info.get("transparency")
    if picture.mode.startswith("I"):
        # 16 bits a pixel: Pillow's own conversion would cut off, not scale, and forget which value is transparent.
        values: NDArray[np.int64] = np.asarray(picture).astype(np.int64)
        grey = (np.clip(values, 0, 65_535) >> 8).astype(np.uint8)
        if isinstance(transparent, int):
            grey[values == transparent] = 255
        return Image.fromarray(grey)
    mode = "L" if picture.mode in ("1", "L", "LA", "La") or layout == "LA;16B" else "RGB"
    if not picture.has_transparency_data:
        return picture if picture.mode == "CMYK" else picture.convert(mode)
    if transparent is not None:
        picture.info["transparency"] = _as_decoded(transparent, layout)
    coloured = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", coloured.size, BACKGROUND), coloured).convert(mode)


def _as_decoded(transparent: object, layout: str) -> object:
    """The transparent colour of a PNG in the 8 bits of the decoded pixels; the file gives it in its own depth."""
    if isinstance(transparent, int) and layout in ("L;2", "L;4"):
        return transparent * (85 if layout == "L;2" else 17)
    if isinstance(transparent, tuple) and layout == "RGB;16B":
        return tuple(value >> 8 for value in transparent)
    return transparent


def _upright(picture: Image.Image, header: Image.Image) -> Image.Image:
    """Turned as its EXIF says; as it is where the EXIF is broken, since the pixels are whole."""
    try:
        orientation = header.getexif().get(_ORIENTATION)
    except Exception:
        return picture
    turn = _TURNS.get(orientation) if isinstance(orientation, int) else None
    return picture if turn is None else picture.transpose(turn)
