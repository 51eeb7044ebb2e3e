"""`python -m benchmarks.isolation.simulated`: published fair schedulers beside the product's, in simulated time.

The users and the flood are those of `python -m benchmarks.isolation`. A step of n rows takes `ROW` · (overhead + n)
seconds. Published schedulers are work-conserving: they decide whose rows run, and fill the batch.

- Virtual Token Counter (Sheng et al., OSDI 2024): a row that has begun runs to its end; room goes to the waiting user
  with the smallest counter of service; who returns has at least the smallest counter of those who are there.
- Start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996), with a row's step as its packet: in each step the rows
  with the smallest start tags run, so that any row may be interrupted after any step.
"""

from __future__ import annotations

import heapq
import itertools
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from unittest import mock

from papa_serving.contracts.identity import UserKey
from papa_serving.generator.job import Job, Row
from papa_serving.generator.scheduling.cost import StepCost
from papa_serving.generator.scheduling.scheduler import Scheduler

MAX_ROWS, STEPS, ROW = 32, 12, 0.008
"""Rows of a batch, steps of an item, and the seconds that a row adds to a step."""
USERS, PAUSE = 4, 0.5
CALLERS, ITEMS = 16, 8
"""Of the flood: calls at once, and the items of each."""
OVERHEADS = (0.5, 2.0, 8.0)
"""The fixed part of a step, in rows: a CPU has little of it, a GPU much."""
SECONDS = 300.0
FLOOD = UserKey("tenant", "flood")


class Policy(ABC):
    """Decides which rows take the next step."""

    @abstractmethod
    def push(self, rows: Sequence[Row]) -> None:
        """Takes the rows of a new generation."""

    @abstractmethod
    def batch(self, now: float) -> list[Row]:
        """The rows of the step that begins now; those that have ended are never among them again."""

    @abstractmethod
    def stepped(self, rows: Sequence[Row], seconds: float, now: float) -> None:
        """Hears of a step that was taken; its rows have moved on."""


class Product(Policy):
    """papa_serving.generator.scheduling, as the engine calls it."""

    def __init__(self) -> None:
        self._scheduler = Scheduler(MAX_ROWS, MAX_ROWS, 0, StepCost())
        self._running: list[Row] = []

    def push(self, rows: Sequence[Row]) -> None:
        self._scheduler.push(rows)

    def batch(self, now: float) -> list[Row]:
        self._running = [row for row in self._running if not row.done]
        with mock.patch("time.monotonic", lambda: now):
            change = self._scheduler.next(self._running)
        self._running = [row for row in self._running if row not in set(change.park)] + change.admit
        return self._running

    def stepped(self, rows: Sequence[Row], seconds: float, now: float) -> None:
        for row in rows:
            row.stint += 1
        with mock.patch("time.monotonic", lambda: now):
            self._scheduler.stepped(rows, seconds)


class VirtualTokenCounter(Policy):
    """Counts row-steps instead of tokens."""

    def __init__(self) -> None:
        self._counters: Counter[UserKey] = Counter()
        self._waiting: dict[UserKey, list[Row]] = {}
        self._running: list[Row] = []

    def push(self, rows: Sequence[Row]) -> None:
        user, there = rows[0].job.user, {*self._waiting, *(row.job.user for row in self._running)}
        if user not in there and there:
            self._counters[user] = max(self._counters[user], min(self._counters[each] for each in there))
        self._waiting.setdefault(user, []).extend(rows)

    def batch(self, now: float) -> list[Row]:
        self._running = [row for row in self._running if not row.done]
        while self._waiting and len(self._running) < MAX_ROWS:
            user = min(self._waiting, key=self._counters.__getitem__)
            self._running.append(self._waiting[user].pop(0))
            self._counters[user] += 1  # its first step, so that one admission does not take all the room
            if not self._waiting[user]:
                del self._waiting[user]
        return self._running

    def stepped(self, rows: Sequence[Row], seconds: float, now: float) -> None:
        self._counters.update(row.job.user for row in rows if row.position > 1)


class StartTimeFairQueueing(Policy):
    """Users have equal weights."""

    def __init__(self) -> None:
        self._finish: Counter[UserKey] = Counter()
        self._virtual = 0
        self._queue: list[tuple[int, int, Row]] = []
        self._order = itertools.count()

    def push(self, rows: Sequence[Row]) -> None:
        for row in rows:
            start = max(self._virtual, self._finish[row.job.user])
            self._finish[row.job.user] = start + 1
            heapq.heappush(self._queue, (start, next(self._order), row))

    def batch(self, now: float) -> list[Row]:
        taken = [heapq.heappop(self._queue) for _ in range(min(MAX_ROWS, len(self._queue)))]
        self._virtual = max([self._virtual, *(start for start, _, _ in taken[:1])])
        return [row for _, _, row in taken]

    def stepped(self, rows: Sequence[Row], seconds: float, now: float) -> None:
        self.push([row for row in rows if not row.done])


POLICIES: dict[str, Callable[[], Policy]] = {
    "the product's": Product,
    "Virtual Token Counter": VirtualTokenCounter,
    "start-time fair queueing": StartTimeFairQueueing,
}


def latencies(policy: Policy, overhead: float, flooded: bool, seconds: float = SECONDS) -> list[float]:
    """Seconds of each item of the well-behaved users."""
    now, seen = 0.0, list[float]()
    left: Counter[Job] = Counter()
    asking = [(number * PAUSE / USERS, number, UserKey("tenant", f"user-{number}"), 1) for number in range(USERS)]
    asking += [(0.0, USERS + number, FLOOD, ITEMS) for number in range(CALLERS if flooded else 0)]
    heapq.heapify(asking)
    callers: dict[Job, tuple[float, int]] = {}
    while now < seconds:
        while asking and asking[0][0] <= now:
            begun, number, user, count = heapq.heappop(asking)
            job = Job(user, count, number, "ddim", STEPS, deliver=lambda finished: None)
            policy.push(job.rows(tuple(float(step) for step in range(STEPS, 0, -1))))
            left[job], callers[job] = count, (begun, number)
        rows = list(policy.batch(now))
        if not rows:
            now = asking[0][0]
            continue
        length = ROW * (overhead + len(rows))
        now += length
        for row in rows:
            row.position += 1
        policy.stepped(rows, length, now)
        for job, ended in Counter(row.job for row in rows if row.done).items():
            left[job] -= ended
            if left[job]:
                continue
            begun, number = callers.pop(job)
            if job.user == FLOOD:
                heapq.heappush(asking, (now, number, job.user, job.count))
            else:
                seen.append(now - begun)
                heapq.heappush(asking, (now + PAUSE, number, job.user, job.count))
    return seen


def ratio(policy: str, overhead: float, seconds: float = SECONDS) -> float:
    """p99 of the well-behaved beside the flood ÷ without it."""
    quiet, beside = (sorted(latencies(POLICIES[policy](), overhead, flooded, seconds)) for flooded in (False, True))
    return beside[int(0.99 * len(beside))] / quiet[int(0.99 * len(quiet))]


def main() -> None:
    print(f"| p99 beside ÷ without, by a step's fixed part | {' | '.join(f'{each:g} rows' for each in OVERHEADS)} |")
    print("|---|" + "---|" * len(OVERHEADS))
    for name in POLICIES:
        print(f"| {name} | " + " | ".join(f"{ratio(name, overhead):.2f}" for overhead in OVERHEADS) + " |", flush=True)


if __name__ == "__main__":
    main()
