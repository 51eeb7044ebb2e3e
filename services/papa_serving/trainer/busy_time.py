"""The share of its time that somebody works."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic


class BusyTime:
    """A context manager around the work, and the share since it was last asked for. Work may be under way then."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._asked = clock()
        self._worked = 0.0
        self._begun: float | None = None

    def __enter__(self) -> None:
        self._begun = self._clock()

    def __exit__(self, *_: object) -> None:
        self._settle(self._clock())
        self._begun = None

    def share(self) -> float:
        """Between 0 and 1, of the time since the last call."""
        now = self._clock()
        if self._begun is not None:
            self._settle(now)
        worked, elapsed = self._worked, now - self._asked
        self._worked, self._asked = 0.0, now
        return min(1.0, worked / elapsed) if elapsed > 0 else 0.0

    def _settle(self, now: float) -> None:
        assert self._begun is not None
        self._worked += now - self._begun
        self._begun = now
