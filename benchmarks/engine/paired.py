"""Fair ratios on a noisy machine: the alternatives take turns, and only times of the same turn are compared."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

import torch


@dataclass(frozen=True)
class Paired:
    """Seconds of each alternative per turn."""

    seconds: Mapping[str, list[float]]

    def ratio(self, of: str, to: str) -> float:
        """Median over the turns of speed of `of` ÷ speed of `to`; above 1 means that `of` is faster."""
        return median(theirs / mine for mine, theirs in zip(self.seconds[of], self.seconds[to], strict=True))

    def spread(self, of: str, to: str) -> tuple[float, float]:
        """The quartiles of that ratio."""
        ratios = sorted(theirs / mine for mine, theirs in zip(self.seconds[of], self.seconds[to], strict=True))
        return ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]

    def figure(self, of: str, to: str) -> list[float]:
        """That ratio and its quartiles, as they are recorded."""
        return [self.ratio(of, to), *self.spread(of, to)]


def take_turns(
    alternatives: Mapping[str, Callable[[], object]], turns: int, warm: bool = True, until: float = float("inf")
) -> Paired:
    """One untimed round where `warm`, then `turns` rounds; every other one in the opposite order.

    The first round is always finished; after it, none begins later than `until`, a reading of time.monotonic().
    """
    for run in alternatives.values() if warm else ():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in alternatives}
    for turn in range(turns):
        if turn and time.monotonic() > until:
            break
        names = list(alternatives) if turn % 2 == 0 else list(alternatives)[::-1]
        for name in names:
            finish()
            started = time.perf_counter()
            alternatives[name]()
            finish()
            seconds[name].append(time.perf_counter() - started)
    return Paired(seconds)


def finish() -> None:
    """Waits until a GPU has done all that was asked of it."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
