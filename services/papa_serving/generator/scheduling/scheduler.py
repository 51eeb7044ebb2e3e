"""Decides before each denoising step which running rows are parked and which waiting rows are admitted."""

from __future__ import annotations

import heapq
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count
from types import MappingProxyType
from typing import NamedTuple

from papa_serving.contracts.identity import UserKey
from papa_serving.generator.job import AdapterKey, Job, Row
from papa_serving.generator.scheduling.cost import StepCost
from papa_serving.generator.scheduling.fairness import QUANTUM, Shares, Wanted, beyond, displaced

NO_LIMITS: Mapping[UserKey, int] = MappingProxyType({})


class Change(NamedTuple):
    """The change of the batch before a step: the running rows that leave it, and the waiting rows that join it."""

    park: list[Row]
    admit: list[Row]


class Scheduler:
    """The waiting rows, and the decision which of them run next. Belongs to the engine's thread.

    A step has at most `max_rows` rows, whose adapters lie in at most `slots` slots; a row needs its adapter while
    t ≥ K (`adapt_from`). The scheduler decides and takes no slot itself: that is the batch's part.
    """

    def __init__(self, max_rows: int, slots: int, adapt_from: int, cost: StepCost) -> None:
        self._max_rows = max_rows
        self._slots = slots
        self._adapt_from = adapt_from
        self._cost = cost
        self._queue = FairQueue()
        self._shares = Shares(cost)

    def __bool__(self) -> bool:
        return bool(self._queue)

    def push(self, rows: Iterable[Row]) -> None:
        """Adds the rows of a new generation."""
        self._queue.push(rows)

    def drop(self, gone: Callable[[Job], bool]) -> Counter[UserKey]:
        """Removes the waiting rows of every such generation; returns how many of each user there were."""
        return self._queue.drop(gone)

    def jobs(self) -> set[Job]:
        """The generations that have waiting rows."""
        return self._queue.jobs()

    def stepped(self, rows: Sequence[Row], seconds: float) -> None:
        """Learns from a step that these rows have taken together."""
        self._cost.record(len(rows), seconds)
        self._shares.ran(Counter(row.job.user for row in rows), time.monotonic())

    def next(self, running: Sequence[Row]) -> Change:
        """The change before the next step. On return, parked rows are in the queue again and admitted ones are not."""
        limits = self._shares.limits(self._queue.wanted(running), time.monotonic())
        paused = beyond(running, limits)
        self._queue.pause(paused)
        if not self._queue:
            return Change([], [])
        running = _without(running, paused)
        free = self._max_rows - len(running)
        seats = Seats(running, self._slots, self._adapt_from)
        parked = self._queue.displaced(running, free, seats.available, limits)
        self._queue.park(parked)
        running = _without(running, parked)
        seats = Seats(running, self._slots, self._adapt_from)
        admitted = self._queue.admit(free + len(parked), running, seats.take, limits)
        return Change([*paused, *parked], admitted)


class Seats:
    """Decides which further rows could have their adapter in a slot beside the running rows."""

    def __init__(self, running: Iterable[Row], slots: int, adapt_from: int) -> None:
        self._held = {row.adapter.key for row in running if row.slot and row.adapter is not None}
        self._slots = slots
        self._adapt_from = adapt_from

    def available(self, row: Row) -> bool:
        """Whether the row needs no slot, or could have one."""
        key = self._needed(row)
        return key is None or key in self._held or len(self._held) < self._slots

    def take(self, row: Row) -> bool:
        """The same, and counts the row's slot as held from now on."""
        available, key = self.available(row), self._needed(row)
        if available and key is not None:
            self._held.add(key)
        return available

    def _needed(self, row: Row) -> AdapterKey | None:
        return row.adapter.key if row.adapter is not None and row.wants_adapter(self._adapt_from) else None


class FairQueue:
    """Rows wait per user and per generation.

    The next row is of the user with the fewest running rows, and of that user's generation with the fewest; among
    equals of the one that was served longest ago.
    """

    def __init__(self) -> None:
        self._waiting: dict[UserKey, dict[Job, deque[Row]]] = {}
        self._turns: dict[UserKey | Job, int] = {}
        self._clock = count()

    def __len__(self) -> int:
        return sum(len(rows) for jobs in self._waiting.values() for rows in jobs.values())

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def jobs(self) -> set[Job]:
        """The generations that have rows here."""
        return {job for jobs in self._waiting.values() for job in jobs}

    def push(self, rows: Iterable[Row]) -> None:
        """Adds rows behind those of the same generation."""
        for row in rows:
            jobs = self._waiting.setdefault(row.job.user, {})
            jobs.setdefault(row.job, deque()).append(row)
            for party in (row.job.user, row.job):
                self._turns.setdefault(party, next(self._clock))

    def wanted(self, running: Iterable[Row]) -> dict[UserKey, Wanted]:
        """The demand of each user, from the running rows and the waiting ones."""
        rows, steps = Counter[UserKey](), Counter[UserKey]()
        for row in running:
            rows[row.job.user] += 1
            steps[row.job.user] += row.left
        for user, jobs in self._waiting.items():
            for waiting in jobs.values():
                rows[user] += len(waiting)
                steps[user] += len(waiting) * len(waiting[0].plan)
        return {user: Wanted(number, steps[user]) for user, number in rows.items()}

    def admit(
        self,
        free: int,
        running: Iterable[Row],
        seat: Callable[[Row], bool],
        limits: Mapping[UserKey, int] = NO_LIMITS,
    ) -> list[Row]:
        """Takes up to `free` rows, and no more of a user than may run.

        `seat` takes a slot for a row's adapter, or returns False when there is none.
        """
        held: Counter[UserKey | Job] = Counter()
        for row in running:
            held.update((row.job.user, row.job))
        order = [(held[user], self._turns[user], user) for user in self._waiting]
        heapq.heapify(order)
        admitted: list[Row] = []
        while order and len(admitted) < free:
            user = heapq.heappop(order)[2]
            if held[user] >= limits.get(user, free + held[user]):
                continue
            taken = self._take(user, held, seat)
            if taken is None:
                continue
            admitted.append(taken)
            held.update((user, taken.job))
            if user in self._waiting:
                self._turns[user] = next(self._clock)
                heapq.heappush(order, (held[user], self._turns[user], user))
        return admitted

    def park(self, rows: Iterable[Row]) -> None:
        """Puts rows that made room before the others of their generation, so that what was begun is finished first."""
        for row in rows:
            self._put_back(row)
            row.stint = 0
            for party in (row.job.user, row.job):
                self._turns[party] = next(self._clock)

    def pause(self, rows: Iterable[Row]) -> None:
        """Puts rows beyond their user's limit back. They are that user's next rows until their quantum is used up."""
        for row in rows:
            self._put_back(row)
            if row.stint < QUANTUM:
                self._turns[row.job] = -1
            else:
                row.stint, self._turns[row.job] = 0, next(self._clock)

    def displaced(
        self,
        running: Sequence[Row],
        free: int,
        seatable: Callable[[Row], bool],
        limits: Mapping[UserKey, int] = NO_LIMITS,
    ) -> list[Row]:
        """The running rows that must make room; see papa_serving.generator.scheduling.fairness."""
        return displaced(running, self._waiting, free, seatable, limits)

    def drop(self, gone: Callable[[Job], bool]) -> Counter[UserKey]:
        """Removes the rows of every such generation; returns how many of each user there were."""
        dropped = Counter[UserKey]()
        for job in [job for jobs in self._waiting.values() for job in jobs if gone(job)]:
            dropped[job.user] += self._remove(job)
        return dropped

    def _put_back(self, row: Row) -> None:
        self.push([row])
        self._waiting[row.job.user][row.job].rotate(1)

    def _take(self, user: UserKey, held: Counter[UserKey | Job], seat: Callable[[Row], bool]) -> Row | None:
        jobs = self._waiting[user]
        for job in sorted(jobs, key=lambda job: (held[job], self._turns[job])):
            if not seat(jobs[job][0]):
                continue
            row = jobs[job].popleft()
            self._turns[job] = next(self._clock)
            if not jobs[job]:
                self._remove(job)
            return row
        return None

    def _remove(self, job: Job) -> int:
        rows = self._waiting[job.user].pop(job)
        del self._turns[job]
        if not self._waiting[job.user]:
            del self._waiting[job.user], self._turns[job.user]
        return len(rows)


def _without(rows: Sequence[Row], gone: Sequence[Row]) -> list[Row]:
    leaving = set(gone)
    return [row for row in rows if row not in leaving]
