"""How fast the engine denoises, to tell a refused caller when to come back."""

from __future__ import annotations

SHORTEST, LONGEST = 0.1, 60.0
"""Seconds between which every answer lies."""


class Pace:
    """A moving average over about the last twenty steps."""

    def __init__(self) -> None:
        self._rows = 0.0
        self._seconds = 0.0

    def record(self, rows: int, seconds: float) -> None:
        """One step of `rows` rows took `seconds`."""
        self._rows = 0.95 * self._rows + rows
        self._seconds = 0.95 * self._seconds + seconds

    def seconds(self, row_steps: int) -> float:
        """How long that many steps of single rows take; 1 s while nothing is known."""
        if not self._rows:
            return 1.0
        return min(LONGEST, max(SHORTEST, row_steps * self._seconds / self._rows))
