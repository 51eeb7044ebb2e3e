"""How much of a step is anybody's: who asks for much does not make the steps long for who asks for little.

Rows share a step, and a step takes longer the more rows it has: many rows of one user slow everybody down even where
places are free. So each user's claim is weighed (steps had lately and steps still wanted), and next to users with far
smaller claims only so many rows run as lengthen the step by a bounded share of its time. Nobody's share is zero: what
is less than a row in each step is a row in some of them.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from papa_serving.contracts.identity import UserKey
from papa_serving.generator.step_cost import StepCost

FAR = 4.0
"""A claim that many times another's is far larger."""
LENGTHENED = 0.4
"""By which share of its time a step of smaller claims may be lengthened for the sake of a far larger one."""
PATIENCE = 3.0
"""Steps of one row that somebody who comes back waits at most for the step that runs."""
HALF_LIFE = 1.0
"""Seconds in which half of what a user had is forgotten."""
ABSENT = 10.0
"""Seconds without a step after which a user is not expected back."""


@dataclass(frozen=True)
class Wanted:
    """Of one user, running and waiting: rows, and the steps that they still need."""

    rows: int
    steps: int


class Shares:
    """Belongs to the engine's thread; `now` is of the monotonic clock."""

    def __init__(self, cost: StepCost) -> None:
        self._cost = cost
        self._had: OrderedDict[UserKey, tuple[float, float]] = OrderedDict()
        self._parts: dict[UserKey, float] = {}

    def ran(self, rows_of: Mapping[UserKey, int], now: float) -> None:
        """A step has been taken with so many rows of each."""
        for user, rows in rows_of.items():
            self._had[user] = (self._lately(user, now) + rows, now)
            self._had.move_to_end(user)
        while self._had and now - next(iter(self._had.values()))[1] > ABSENT:
            self._had.popitem(last=False)

    def limits(self, wanted: Mapping[UserKey, Wanted], now: float) -> dict[UserKey, int]:
        """How many rows of the step to come may be theirs, for those whose rows are limited."""
        claims = {user: each.steps + self._lately(user, now) for user, each in wanted.items()}
        order = sorted(wanted, key=claims.__getitem__)
        granted = {user: float(each.rows) for user, each in wanted.items()}
        limits: dict[UserKey, int] = {}
        far, rows, most = 0, 0.0, 0
        for user in order:
            while FAR * claims[order[far]] <= claims[user]:  # ends at the user itself at the latest
                rows, most = rows + granted[order[far]], max(most, wanted[order[far]].rows)
                far += 1
            allowed = self._allowed(rows) if far else self._alone(wanted, claims[user], now)
            if allowed < granted[user] and wanted[user].rows > most:
                granted[user], limits[user] = allowed, self._whole(user, allowed)
        self._parts = {user: part for user, part in self._parts.items() if user in limits}
        return limits

    def _allowed(self, rows: float) -> float:
        """Beside so many rows of far smaller claims."""
        return self._cost.lengthened(rows, LENGTHENED)

    def _alone(self, wanted: Mapping[UserKey, Wanted], claim: float, now: float) -> float:
        """While nobody with a far smaller claim wants anything; they may have been here a moment ago."""
        expected = any(user not in wanted and FAR * self._lately(user, now) <= claim for user in self._had)
        return 1 + self._cost.lengthened(1, PATIENCE - 1) if expected else math.inf

    def _lately(self, user: UserKey, now: float) -> float:
        """Steps of single rows, each counted less the longer ago it was."""
        steps, at = self._had.get(user, (0.0, now))
        return steps * math.exp2((at - now) / HALF_LIFE)

    def _whole(self, user: UserKey, allowed: float) -> int:
        """Rows of this step; what is left of a row is kept for the next."""
        sum_of_parts = allowed + self._parts.get(user, 0.0)
        self._parts[user] = sum_of_parts % 1
        return int(sum_of_parts)
