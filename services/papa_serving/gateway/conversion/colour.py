"""Converts the colours of a picture to sRGB, from what its file says of them.

An embedded ICC profile counts first, then the chunks sRGB, gAMA and cHRM of a PNG file, in the order of the PNG
specification (third edition, 4.3). Wrong or unsuitable information is ignored; the pixels are then
taken for sRGB, as in a file without any.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

Matrix = NDArray[np.float64]

_PROFILED = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}
"""The mode that a profile of each colour space is for."""
SRGB_GAMMA = 0.45455
"""The gAMA value that encoders write for sRGB, whose curve is not exactly a power."""
SRGB_CHROMATICITIES = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
"""x and y of white, red, green and blue, as in cHRM (IEC 61966-2-1)."""
_CONES = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
"""The cone responses of the Bradford adaptation."""


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
