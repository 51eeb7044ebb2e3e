"""What one more row adds to a step, learned from the steps themselves: it decides whose rows cost others time."""

from __future__ import annotations

MEMORY = 0.99
"""What a step's weight keeps with each later one: about the last hundred count."""
ENOUGH = 0.25
"""Variance of the numbers of rows below which steps tell nothing of what a row adds."""
LONGEST = 1_000.0


class StepCost:
    """Least squares of seconds ≈ b · (`overhead` + rows): `overhead` is a step's fixed part, counted in rows.

    It is 0 until steps of different sizes have been seen: each row then costs as much as another.
    """

    def __init__(self) -> None:
        self.overhead = 0.0
        self._weight = self._rows = self._seconds = self._squares = self._products = 0.0

    def record(self, rows: int, seconds: float) -> None:
        """One step of `rows` rows took `seconds`."""
        self._weight = MEMORY * self._weight + 1
        self._rows = MEMORY * self._rows + rows
        self._seconds = MEMORY * self._seconds + seconds
        self._squares = MEMORY * self._squares + rows * rows
        self._products = MEMORY * self._products + rows * seconds
        mean, mean_seconds = self._rows / self._weight, self._seconds / self._weight
        variance = self._squares / self._weight - mean * mean
        if variance >= ENOUGH:
            slope = (self._products / self._weight - mean * mean_seconds) / variance
            fixed = mean_seconds / slope - mean if slope > 0 else LONGEST
            self.overhead = min(LONGEST, max(0.0, fixed))

    def lengthened(self, rows: float, by: float) -> float:
        """How many more rows make a step of `rows` rows longer by that share of its seconds."""
        return by * (self.overhead + rows)
