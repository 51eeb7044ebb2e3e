"""The wire format of a sample x0: a short header, the prompt if there was one, then the bytes of the array.

Layout: 1 byte format version, 1 byte dtype (0 = uint8 pixels, 1 = float16 latents), 1 byte number of dimensions, each
dimension as 2 bytes big-endian; in version 2 the length of the prompt as 2 bytes big-endian and the prompt in UTF-8;
then the values in C order. A sample without a prompt is written as version 1. Pixels map [−1, 1] to 0…255.
"""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

_DTYPES: tuple[np.dtype[np.generic], ...] = (np.dtype(np.uint8), np.dtype("<f2"))
_PLAIN, _PROMPTED = 1, 2


def pack_sample(array: NDArray[np.generic], prompt: str = "") -> bytes:
    """Packs a sample. Shape: [channels, height, width], uint8 or float16; `prompt` may be "".

    Raises ValueError on any other dtype, or a prompt of more than 65,535 bytes.
    """
    dtype = array.dtype.newbyteorder("<")
    if dtype not in _DTYPES:
        raise ValueError(f"a sample is uint8 or float16, not {array.dtype}")
    version = _PROMPTED if prompt else _PLAIN
    header = struct.pack(f">BBB{array.ndim}H", version, _DTYPES.index(dtype), array.ndim, *array.shape)
    return header + _packed_prompt(prompt) + np.ascontiguousarray(array, dtype=dtype).tobytes()


def x0_of_pixels(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Pixels 0…255 as the x0 in [-1, 1] that a model sees: x0 = pixel / 127.5 - 1, in any shape."""
    return pixels.astype(np.float32) / np.float32(127.5) - np.float32(1)


def unpack_sample(data: bytes) -> NDArray[np.generic]:
    """Returns the array. Raises ValueError on anything that pack_sample does not write."""
    return unpack_prompted(data)[0]


def unpack_prompted(data: bytes) -> tuple[NDArray[np.generic], str]:
    """Returns the array and the prompt. Raises ValueError on anything that pack_sample does not write."""
    if len(data) < 3 or data[0] not in (_PLAIN, _PROMPTED) or data[1] >= len(_DTYPES):
        raise ValueError("not a packed sample")
    dtype, ndim = _DTYPES[data[1]], data[2]
    body = 3 + 2 * ndim
    if len(data) < body:
        raise ValueError("a packed sample ends within its header")
    shape = struct.unpack(f">{ndim}H", data[3:body])
    prompt = ""
    if data[0] == _PROMPTED:
        prompt, body = _unpacked_prompt(data, body)
    if len(data) - body != int(np.prod(shape)) * dtype.itemsize:
        raise ValueError("a packed sample's length does not match its shape")
    return np.frombuffer(data, dtype=dtype, offset=body).reshape(shape), prompt


def _packed_prompt(prompt: str) -> bytes:
    text = prompt.encode()
    if len(text) > 0xFFFF:
        raise ValueError("a prompt of more than 65,535 bytes")
    return struct.pack(">H", len(text)) + text if text else b""


def _unpacked_prompt(data: bytes, start: int) -> tuple[str, int]:
    """Returns the prompt and the offset of the values."""
    if len(data) < start + 2:
        raise ValueError("a packed sample ends within its prompt")
    end = start + 2 + int.from_bytes(data[start : start + 2], "big")
    return data[start + 2 : end].decode(), end
