"""Random numbers as a function of (seed, domain, stream, draw), the same on every device and in every batch.

Counter-based: a draw is what Philox4x64-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011)
makes of a key and a counter; nothing is carried from one draw to the next but its number.

| part of Philox | holds |
|---|---|
| key | the whole 64-bit seed; then VERSION and the domain |
| counter | the block within a draw, the number of the draw, the stream |

torch's generators cannot take their place: the CPU's keeps 32 bits of its seed, so that 2^48 + 5 and 5 give the same
numbers, and the GPU's is another algorithm. numpy makes the bits, whose streams stay the same between its versions
(the variates of `numpy.random.Generator` may change), and this module the variates. They are made on the host and
moved: less than half a millisecond for 28 × 28 pixels and two for latents of 4 × 64 × 64, on one core, far below one
evaluation of the backbone.
"""

from __future__ import annotations

import math
from enum import IntEnum

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

VERSION = 2
"""The version of the map from seeds to noise; another one gives other pictures for the same seed. Version 1, of
release 0.1, was torch's CPU generator: a seed modulo 2^32."""


class Domain(IntEnum):
    """The purpose of a seed. Equal seeds of different domains give unrelated numbers. A value is never reassigned."""

    ITEM = 1
    """Items that are shown, and samples that stand for them."""
    POOL = 2
    """Formerly a backbone's pool, whose samples now have seeds of ITEM (papa.pool.FIRST_SEED)."""
    UPDATE = 3
    """Rows, timesteps and noise of an update."""
    ADAPTER = 4
    """The first weights of an adapter whose A learns."""
    PROBE = 5
    """The samples with which a new revision is tested before it serves."""
    TRAINING = 6
    """Training a backbone or an oracle: first weights (stream 0), then each step's rows and noise."""
    ORDER = 7
    """The order in which training goes through a data set."""
    USER = 8
    """The mistakes of a simulated user."""
    SUCCESSOR = 9
    """The seeds of an item's further candidates (papa.selection); stream k is the k-th."""
    LUCK = 10
    """Whether a candidate of doubtful chance is accepted."""
    QUESTION = 11
    """The place among a user's questions from which a generation asks."""


class Noise:
    """The draws of one seed, one after another. A draw's length does not move the draws behind it.

    `stream` tells apart sequences of one seed, such as the steps of a training run.
    """

    def __init__(self, seed: int, domain: Domain = Domain.ITEM, stream: int = 0) -> None:
        """Raises ValueError for a seed or a stream outside [0, 2^64)."""
        if not 0 <= seed < 1 << 64 or not 0 <= stream < 1 << 64:
            raise ValueError(f"a seed is a whole number from 0 to 2^64 - 1, not {seed} (stream {stream})")
        self._key = np.array([seed, VERSION << 32 | domain], dtype=np.uint64)
        self._stream, self._draw = stream, 0

    def normal(self, shape: tuple[int, ...] | torch.Size) -> Tensor:
        """N(0, 1) by Box and Muller (Ann. Math. Stat. 29(2), 1958): √(−2 ln u) cos 2πv and √(−2 ln u) sin 2πv of pairs
        of 32-bit uniforms. Shape: `shape`, float32."""
        count = math.prod(shape)
        words = self._bits((count + 1) // 2).view("<u4").reshape(-1, 2)
        radius = np.sqrt(-2 * np.log((words[:, 0] + 0.5) * 2.0**-32))
        angle = words[:, 1] * (2 * np.pi * 2.0**-32)
        pairs = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
        return torch.from_numpy(pairs.reshape(-1)[:count].astype(np.float32)).view(shape)

    def uniform(self, shape: tuple[int, ...]) -> Tensor:
        """U[0, 1) of 53 bits. Shape: `shape`, float64."""
        bits = self._bits(math.prod(shape)) >> np.uint64(11)
        return torch.from_numpy(bits * 2.0**-53).view(shape)

    def integers(self, high: int, count: int) -> Tensor:
        """Uniform on 0 … high − 1, but for a bias below high / 2^53. Shape: [count] int64."""
        return (self.uniform((count,)) * high).long()

    def permutation(self, count: int) -> Tensor:
        """0 … count − 1 in random order. Shape: [count] int64."""
        return self.uniform((count,)).argsort(stable=True)

    def choice(self, probabilities: Tensor, count: int) -> Tensor:
        """`count` indexes with replacement, by inversion of the distribution function: i with a share of p_i / Σ p,
        and never where p_i is 0. Shape: [n], ≥ 0 and not all 0 → [count] int64."""
        below = probabilities.double().cumsum(0)
        return torch.searchsorted(below, self.uniform((count,)) * below[-1], right=True)

    def seed(self) -> int:
        """Another seed, uniform on 0 … 2^63 − 1."""
        return int(self._bits(1)[0] >> np.uint64(1))

    def _bits(self, count: int) -> NDArray[np.uint64]:
        """The next draw. Shape: [count]."""
        counter = np.array([0, self._draw, self._stream, 0], dtype=np.uint64)
        self._draw += 1
        bits: NDArray[np.uint64] = np.random.Philox(counter=counter, key=self._key).random_raw(count)
        return bits.astype("<u8", copy=False)


def seed_torch(seed: int, domain: Domain) -> None:
    """Seeds torch's global generator, which initialises layers, with 32 bits that depend on all 64 of `seed`."""
    torch.manual_seed(int(Noise(seed, domain).integers(1 << 32, 1)))
