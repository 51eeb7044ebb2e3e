"""Decodes pictures of a caller's catalogue, within limits, into the shape and colours that the backbone works in.

Colours are converted to sRGB. An embedded ICC profile counts first, then the chunks sRGB, gAMA and cHRM of a PNG file,
in the order of the PNG specification (third edition, 4.3). Wrong or unsuitable information is ignored; the pixels are
then taken for sRGB, as in a file without any.
"""

from __future__ import annotations

import io
import re
import warnings
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from papa_serving.contracts.samples import pack_sample

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
PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
_START_OF_SCAN, _WITHOUT_LENGTH = 0xDA, (0x01, 0xD8)
_APPLICATION, _ADOBE, _COMMENT = range(0xE1, 0xF0), 0xEE, 0xFE
_ADOBE_BYTES = 16
# In the data of a scan 0xFF is followed by 0 (a stuffed byte), by a restart marker (D0 to D7), by another 0xFF that
# fills, or by the marker of the next segment.
_NEXT_MARKER = re.compile(rb"\xff+([\x01-\xcf\xd8-\xfe])")
INCOMPLETE = "is not a complete PNG, JPEG or WebP image"

Matrix = NDArray[np.float64]

_PROFILED = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}
"""The mode that a profile of each colour space is for."""
SRGB_GAMMA = 0.45455
"""The gAMA value that encoders write for sRGB, whose curve is not exactly a power."""
SRGB_CHROMATICITIES = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
"""x and y of white, red, green and blue, as in cHRM (IEC 61966-2-1)."""
_CONES = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
"""The cone responses of the Bradford adaptation."""


class BadPicture(ValueError):
    """The bytes are not an image that can be used; the message says why."""


def begins_as_picture(data: bytes) -> bool:
    """Whether the bytes begin as a file of FORMATS does: all that can be said of a picture without decoding it."""
    return _SIGNATURES.match(data) is not None


def decode(data: bytes, shape: tuple[int, int, int], max_pixels: int, prompt: str = "") -> bytes:
    """Packs a uint8 sample of `shape` = [channels, height, width], channels 1 (grey) or 3 (sRGB), with its prompt.

    Size and scans are read from the headers and refused before any pixel is decoded. The first frame counts; the
    orientation of the camera is applied; transparency shows BACKGROUND; colours are converted to sRGB as the file
    describes them. Raises BadPicture.
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
        return _loaded(_without_metadata(data), max_pixels)


def _loaded(data: bytes, max_pixels: int) -> tuple[Image.Image, Colours]:
    """The upright picture without transparency, of mode L, RGB or CMYK, and what its colours mean."""
    with Image.open(io.BytesIO(data), formats=FORMATS) as header:
        if header.width * header.height > max_pixels:
            raise BadPicture(f"must have at most {max_pixels} pixels")
        if data.startswith(JPEG):
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


def _without_metadata(data: bytes) -> bytes:
    """A PNG or a JPEG with what its pixels need alone; other data, and what is cut off, as it is."""
    if data.startswith(PNG):
        return _bare_png(data)
    return _bare_jpeg(data) if data.startswith(JPEG) else data


def _bare_png(data: bytes) -> bytes:
    """Critical chunks, whose names begin with a capital, and tRNS."""
    kept, at = [PNG], len(PNG)
    while at + 8 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        name = data[at + 4 : at + 8]
        if name[:1].isupper() or name == b"tRNS":
            kept.append(data[at:end])
        at = end
    return b"".join(kept)


def _bare_jpeg(data: bytes) -> bytes:
    """All segments but comments and those of applications; Adobe's says what the channels are, and stays."""
    kept, at = [JPEG], len(JPEG)
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != _START_OF_SCAN:
        kind, end = data[at + 1], at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        whole = kind == _ADOBE and end - at >= _ADOBE_BYTES
        if kind != _COMMENT and (kind not in _APPLICATION or whole):
            kept.append(data[at:end])
        at = end
    return b"".join([*kept, data[at:]])


@dataclass(frozen=True)
class Colours:
    """The colour information of a file: `profile` is b"" and the others are None where it has none.

    The encoded value is the linear one to the power of `gamma`; `chromaticities` as in SRGB_CHROMATICITIES.
    """

    profile: bytes = b""
    gamma: float | None = None
    chromaticities: tuple[float, ...] | None = None

    @classmethod
    def of(cls, picture: Image.Image) -> Colours:
        """Reads the metadata of a loaded file."""
        info = picture.info
        profile = info.get("icc_profile") or b""
        if picture.format != "PNG" or "srgb" in info:
            return cls(profile)
        return cls(profile, info.get("gamma"), info.get("chromaticity"))

    def in_srgb(self, picture: Image.Image) -> Image.Image:
        """The same picture, of mode L, RGB or CMYK, in sRGB; it may stay in its mode."""
        transform = _from_profile(self.profile, picture.mode) if self.profile else None
        if transform is not None:
            converted = ImageCms.applyTransform(picture, transform)
            assert converted is not None  # it is None only in place
            return converted
        if picture.mode == "CMYK" or (self.gamma is None and self.chromaticities is None):
            return picture
        return self._from_chunks(picture)

    def _from_chunks(self, picture: Image.Image) -> Image.Image:
        gamma = SRGB_GAMMA if self.gamma is None else self.gamma
        try:
            matrix = _to_xyz(SRGB_CHROMATICITIES, inverse=True) @ _to_xyz(self.chromaticities or SRGB_CHROMATICITIES)
        except (np.linalg.LinAlgError, ZeroDivisionError, ValueError):
            return picture
        if not 0.1 <= gamma <= 2.0 or not np.isfinite(matrix).all():
            return picture
        usual = abs(gamma - SRGB_GAMMA) < 0.01
        if usual and np.allclose(matrix, np.eye(3), atol=0.01):
            return picture
        encoded = np.asarray(picture.convert("RGB")) / 255
        linear = np.clip((_decoded(encoded) if usual else encoded ** (1 / gamma)) @ matrix.T, 0, 1)
        return Image.fromarray((255 * _encoded(linear)).round().astype(np.uint8))


def _decoded(encoded: Matrix) -> Matrix:
    """The linear values of sRGB."""
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def _encoded(linear: Matrix) -> Matrix:
    """The inverse of `_decoded`."""
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def _to_xyz(chromaticities: tuple[float, ...], inverse: bool = False) -> Matrix:
    """The matrix from linear RGB to XYZ, adapted to the white of sRGB, or its inverse.

    Raises LinAlgError, ValueError, ZeroDivisionError.
    """
    white, *primaries = [_xyz(x, y) for x, y in np.reshape(chromaticities, (4, 2)).tolist()]
    columns = np.array(primaries).T
    matrix = columns * np.linalg.solve(columns, white)
    ours = _CONES @ _xyz(*SRGB_CHROMATICITIES[:2])
    adapted = np.linalg.inv(_CONES) @ np.diag(ours / (_CONES @ white)) @ _CONES @ matrix
    return np.linalg.inv(adapted) if inverse else adapted


def _xyz(x: float, y: float) -> Matrix:
    return np.array([x / y, 1.0, (1 - x - y) / y])


@lru_cache(maxsize=16)
def _from_profile(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """None for a profile that is broken, or for other colours than the picture's."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if _PROFILED.get(source.profile.xcolor_space) != mode:
            return None
        return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError):
        return None
