"""Estimates the cost of steps: the engine's throughput, and the time that one more row adds to a step."""

from __future__ import annotations

STEPS_KEPT = 0.95
"""Decay of a step's weight in the throughput per later step: about the last twenty steps count, so that the
estimate follows a change of load within a generation of the default 25 steps."""
SHORTEST_WAIT, LONGEST_WAIT = 0.1, 60.0
"""Seconds between which every estimate lies. A caller that is told less than a step's time would come back for nothing;
one that is told more than a minute would stay away from an engine that has long recovered."""

COST_KEPT = 0.99
"""The same for the regression: about the last hundred steps count, because a line needs steps of several sizes."""
ENOUGH_VARIANCE = 0.25
"""Variance of the numbers of rows below which steps say nothing about what a row adds. A batch that alternates between
n and n + 1 rows has exactly this variance."""
LARGEST_OVERHEAD = 1_000.0
"""Bounds `overhead` where rows seem to cost nothing: more than any batch has rows."""


class Throughput:
    """Row-steps per second, as a moving average. It tells a refused caller when to come back."""

    def __init__(self) -> None:
        self._rows = 0.0
        self._seconds = 0.0

    def record(self, rows: int, seconds: float) -> None:
        """One step of `rows` rows took `seconds`."""
        self._rows = STEPS_KEPT * self._rows + rows
        self._seconds = STEPS_KEPT * self._seconds + seconds

    def seconds(self, row_steps: int) -> float:
        """Estimates how long that many steps of single rows take; 1 s while nothing is known."""
        if not self._rows:
            return 1.0
        return min(LONGEST_WAIT, max(SHORTEST_WAIT, row_steps * self._seconds / self._rows))


class StepCost:
    """Least squares of seconds ≈ b · (`overhead` + rows): `overhead` is a step's fixed part, counted in rows.

    It is 0 until steps of different sizes have been seen: each row then costs as much as another.
    """

    def __init__(self) -> None:
        self.overhead = 0.0
        self._weight = self._rows = self._seconds = self._squares = self._products = 0.0

    def record(self, rows: int, seconds: float) -> None:
        """One step of `rows` rows took `seconds`."""
        self._weight = COST_KEPT * self._weight + 1
        self._rows = COST_KEPT * self._rows + rows
        self._seconds = COST_KEPT * self._seconds + seconds
        self._squares = COST_KEPT * self._squares + rows * rows
        self._products = COST_KEPT * self._products + rows * seconds
        mean, mean_seconds = self._rows / self._weight, self._seconds / self._weight
        variance = self._squares / self._weight - mean * mean
        if variance >= ENOUGH_VARIANCE:
            slope = (self._products / self._weight - mean * mean_seconds) / variance
            fixed = mean_seconds / slope - mean if slope > 0 else LARGEST_OVERHEAD
            self.overhead = min(LARGEST_OVERHEAD, max(0.0, fixed))

    def lengthened(self, rows: float, by: float) -> float:
        """The number of further rows that lengthen a step of `rows` rows by the share `by` of its seconds."""
        return by * (self.overhead + rows)
