"""How a sample x0 travels between rooms: a short header, then the array's bytes.

Layout: 1 byte format version (1), 1 byte dtype (0 = uint8 pixels, 1 = float16 latents), 1 byte number of dimensions,
each dimension as 2 bytes big-endian, then the values in C order. Pixels map [−1, 1] to 0…255.
"""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

_DTYPES: tuple[np.dtype[np.generic], ...] = (np.dtype(np.uint8), np.dtype("<f2"))


def pack_sample(array: NDArray[np.generic]) -> bytes:
    """Shape: [channels, height, width], uint8 or float16. Raises ValueError on any other dtype."""
    dtype = array.dtype.newbyteorder("<")
    if dtype not in _DTYPES:
        raise ValueError(f"a sample is uint8 or float16, not {array.dtype}")
    header = struct.pack(f">BBB{array.ndim}H", 1, _DTYPES.index(dtype), array.ndim, *array.shape)
    return header + np.ascontiguousarray(array, dtype=dtype).tobytes()


def unpack_sample(data: bytes) -> NDArray[np.generic]:
    """The inverse; raises ValueError on anything that pack_sample does not write."""
    if len(data) < 3 or data[0] != 1 or data[1] >= len(_DTYPES):
        raise ValueError("not a packed sample")
    dtype, ndim = _DTYPES[data[1]], data[2]
    body = 3 + 2 * ndim
    if len(data) < body:
        raise ValueError("a packed sample ends within its header")
    shape = struct.unpack(f">{ndim}H", data[3:body])
    if len(data) - body != int(np.prod(shape)) * dtype.itemsize:
        raise ValueError("a packed sample's length does not match its shape")
    return np.frombuffer(data, dtype=dtype, offset=body).reshape(shape)
