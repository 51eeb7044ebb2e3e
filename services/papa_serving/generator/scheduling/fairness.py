"""Divides a denoising step's rows fairly among users.

Two rules, both on rows, because a row of one step is the unit of service here:

- `displaced`: max-min fairness. Where the batch is full, users, and within a user generations, are brought to equal
  numbers of running rows. It approximates generalised processor sharing (Parekh and Gallager, 1993) one row at a time,
  as fair queueing (Demers, Keshav and Shenker, SIGCOMM 1989) does with packets.
- `Shares`: rows share a step, and a step takes longer the more rows it has, so that many rows of one user slow
  everybody down even where the batch has room. Each user's claim is the service had lately and the service still
  wanted. It plays the part of the counters of the Virtual Token Counter (Sheng et al., OSDI 2024): the service is
  counted in row-steps instead of tokens, and is forgotten with time instead of being lifted when a user returns. Beside
  users with far smaller claims, a user runs only as many rows as lengthen the step by a bounded share of its time. No
  share is zero: less than one row in each step is one row in some of them.

The published schedulers themselves were tried (docs/results/schedulers.md). They are work-conserving, so that a flood
fills the batch and lengthens everybody's steps: beside it the p99 of others is 4 to 39 times that without it where a
step's fixed part is 0.5 to 8 rows, and 1.4 to 3.7 times with the two rules.

A row that makes room loses nothing but time: it waits with its state and goes on where it stopped.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from papa_serving.contracts.identity import UserKey
from papa_serving.generator.job import AdapterKey, Job, Row
from papa_serving.generator.scheduling.cost import StepCost

QUANTUM = 32
"""Steps that a row may run without a break while another user has nothing running: longer than the default generation
of 25 steps, so that only longer ones are interrupted, and a wait of at most 32 steps for whoever is waiting."""

FAR = 4.0
"""A claim that many times another's is far larger. A page of four items beside a single item is ordinary use and is not
limited; the flood of benchmarks/isolation claims more than 100 times as much as its neighbours."""
LENGTHENED = 0.4
"""The share of its time by which a step of smaller claims may be lengthened for the sake of far larger ones. The
product promises twice the latency at most beside a flood: 1.4 leaves the rest for waiting until the running step ends
(docs/results/isolation.md measures 1.44 in sum)."""
PATIENCE = 3.0
"""How long a step may take, in steps of one row, while a light user is expected back: what that user then waits at most
until the running step ends."""
HALF_LIFE = 1.0
"""Seconds in which half of the service that a user had is forgotten: about one default generation on one CPU, so that a
claim outlives the pause between two requests."""
ABSENT = 10.0
"""Seconds without a step after which a user is not expected back: ten half-lives, after which 0.1 % of the service is
remembered."""

P = TypeVar("P", bound=Hashable)
"""A party that shares the batch: users, or the generations of one user."""

Waiting = Mapping[UserKey, Mapping[Job, Sequence[Row]]]


@dataclass(frozen=True)
class Wanted:
    """The demand of one user: running and waiting rows, and the steps that these rows still need."""

    rows: int
    steps: int


class Shares:
    """The second rule. Belongs to the engine's thread; `now` is of the monotonic clock."""

    def __init__(self, cost: StepCost) -> None:
        self._cost = cost
        self._had: OrderedDict[UserKey, tuple[float, float]] = OrderedDict()
        self._fractions: dict[UserKey, float] = {}

    def ran(self, rows_of: Mapping[UserKey, int], now: float) -> None:
        """Counts a step that was taken with so many rows of each user."""
        for user, rows in rows_of.items():
            self._had[user] = (self._lately(user, now) + rows, now)
            self._had.move_to_end(user)
        while self._had and now - next(iter(self._had.values()))[1] > ABSENT:
            self._had.popitem(last=False)

    def limits(self, wanted: Mapping[UserKey, Wanted], now: float) -> dict[UserKey, int]:
        """The most rows of the next step for each user whose rows are limited; others are not named."""
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
        self._fractions = {user: fraction for user, fraction in self._fractions.items() if user in limits}
        return limits

    def _allowed(self, rows: float) -> float:
        """Rows beside `rows` rows of far smaller claims."""
        return self._cost.lengthened(rows, LENGTHENED)

    def _alone(self, wanted: Mapping[UserKey, Wanted], claim: float, now: float) -> float:
        """Rows while nobody with a far smaller claim wants anything; such a user may have been here a moment ago."""
        expected = any(user not in wanted and FAR * self._lately(user, now) <= claim for user in self._had)
        return 1 + self._cost.lengthened(1, PATIENCE - 1) if expected else math.inf

    def _lately(self, user: UserKey, now: float) -> float:
        """Row-steps that the user had, each counted less the longer ago it was."""
        steps, at = self._had.get(user, (0.0, now))
        return steps * math.exp2((at - now) / HALF_LIFE)

    def _whole(self, user: UserKey, allowed: float) -> int:
        """Whole rows of the next step; the fraction of a row is kept for the step after it."""
        rows = allowed + self._fractions.get(user, 0.0)
        self._fractions[user] = rows % 1
        return int(rows)


def beyond(running: Sequence[Row], limits: Mapping[UserKey, int]) -> list[Row]:
    """The rows beyond their user's limit: those with most steps left, so that what is nearly done is finished."""
    over: list[Row] = []
    for user, limit in limits.items():
        over += sorted((row for row in running if row.job.user == user), key=lambda row: row.left)[limit:]
    return over


def displaced(
    running: Sequence[Row],
    waiting: Waiting,
    free: int,
    seatable: Callable[[Row], bool],
    limits: Mapping[UserKey, int],
) -> list[Row]:
    """The rows to park now. The batch has room for `free` more rows; `seatable` says whether a slot can be had for a
    row. No room is made for rows beyond their user's limit.

    Where the free room does not suffice, users, and within a user generations, are brought to equal numbers of running
    rows. Where all slots are held, the adapter that has run longest beyond QUANTUM gives way to a user who has nothing
    running.
    """
    able = {
        user: Counter({job: len(rows) for job, rows in jobs.items() if seatable(rows[0])})
        for user, jobs in waiting.items()
    }
    active = Counter(row.job.user for row in running)
    blocked = any(not jobs and user not in active for user, jobs in able.items())
    parked = _longest_slot(running) if blocked else []
    rest = [row for row in running if row not in parked]
    free += len(parked)
    demand = Counter(
        {
            user: min(jobs.total(), limits.get(user, jobs.total() + active[user]) - active[user])
            for user, jobs in able.items()
        }
    )
    crowded = demand.total() > free
    parked += _surplus(rest, demand, free, lambda row: row.job.user)
    for user in active.keys() & able.keys() - limits.keys() if crowded else ():
        mine = [row for row in rest if row.job.user == user and row not in parked]
        parked += _surplus(mine, able[user], 0, lambda row: row.job)
    return parked


def _surplus(rows: Sequence[Row], demand: Counter[P], free: int, party: Callable[[Row], P]) -> list[Row]:
    """Rows of the richest parties: as many as bring the poorest waiting ones level once the free room is filled."""
    left, parked = list(rows), list[Row]()
    held, jobs = Counter(party(row) for row in left), Counter(row.job for row in left)
    if demand.total() <= free:
        return parked
    poorest = [(held[each], number, each) for number, each in enumerate(demand) if demand[each]]
    heapq.heapify(poorest)
    while poorest:
        _, number, poor = heapq.heappop(poorest)
        if free:
            free -= 1
        elif row := _giving_way(left, held, jobs, poor, party):
            left.remove(row)
            parked.append(row)
            held[party(row)] -= 1
            jobs[row.job] -= 1
        else:
            break
        held[poor] += 1
        demand[poor] -= 1
        if demand[poor]:
            heapq.heappush(poorest, (held[poor], number, poor))
    return parked


def _giving_way(
    rows: Sequence[Row], held: Counter[P], jobs: Counter[Job], poor: P, party: Callable[[Row], P]
) -> Row | None:
    """The row of the richest party, in its largest generation, that has most steps left."""
    richest = max((held[party(row)] for row in rows), default=0)
    if richest - held[poor] >= 2:
        rich = (row for row in rows if held[party(row)] == richest)
        return max(rich, key=lambda row: (jobs[row.job], row.left))
    if held[poor]:
        return None
    long = [row for row in rows if row.stint >= QUANTUM and held[party(row)] == 1]
    return max(long, key=lambda row: row.stint, default=None)


def _longest_slot(rows: Sequence[Row]) -> list[Row]:
    """The rows of the adapter that has run longest, if all of them have run for QUANTUM; else no row."""
    groups: dict[AdapterKey, list[Row]] = {}
    for row in rows:
        if row.slot and row.adapter is not None:
            groups.setdefault(row.adapter.key, []).append(row)
    long = [group for group in groups.values() if min(row.stint for row in group) >= QUANTUM]
    return max(long, key=lambda group: min(row.stint for row in group), default=[])
