"""A day's arrivals in small: Zipf activity against caches that keep what was used last."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Hits:
    """Shares of the generations whose adapter was on the device, in host memory, in the store."""

    device: float
    host: float
    store: float


class Lru:
    """The least recently used leaves."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._kept: OrderedDict[int, None] = OrderedDict()

    def touch(self, user: int) -> bool:
        """Whether the user was there; afterwards the user is."""
        known = user in self._kept
        self._kept[user] = None
        self._kept.move_to_end(user)
        if len(self._kept) > self._capacity:
            self._kept.popitem(last=False)
        return known


def ranks(draw: NDArray[np.float64], users: int, exponent: float) -> NDArray[np.int64]:
    """Users by activity: P(rank = k) ∝ k^−exponent on 1 … users, as its continuous approximation.

    Semantics: the inverse of the distribution function; `draw` is uniform on [0, 1).
    """
    if abs(exponent - 1) < 1e-9:
        value = np.exp(draw * np.log(users + 1))
    else:
        power = 1 - exponent
        value = (1 + draw * ((users + 1) ** power - 1)) ** (1 / power)
    found: NDArray[np.int64] = np.minimum(value.astype(np.int64), users)
    return found


def sessions(users: int, exponent: float, rate: float, generations: int, seconds: float, seed: int) -> list[int]:
    """The users of successive generations. Visits are a Poisson process of `rate` a second; generations of a visit are
    about half a minute apart, so that those of other users come between them."""
    random = np.random.default_rng(seed)
    visits = max(1, int(random.poisson(rate * seconds)))
    who = ranks(random.random(visits), users, exponent)
    begin = random.random(visits) * seconds
    gaps = random.exponential(30.0, (visits, generations)).cumsum(axis=1)
    when = (begin[:, None] + gaps).ravel()
    ordered: list[int] = np.repeat(who, generations)[np.argsort(when)].tolist()
    return ordered


def caches(asked: Iterable[int], slots: int, host: int) -> Hits:
    """One replica's caches under these generations; the first tenth warms them and is not counted."""
    order: Sequence[int] = list(asked)
    device, memory = Lru(slots), Lru(host)
    counts = {"device": 0, "host": 0, "store": 0}
    for index, user in enumerate(order):
        on_device, in_memory = device.touch(user), memory.touch(user)
        if index >= len(order) // 10:
            counts["device" if on_device else "host" if in_memory else "store"] += 1
    total = max(1, sum(counts.values()))
    return Hits(*(counts[tier] / total for tier in ("device", "host", "store")))
