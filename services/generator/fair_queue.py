"""Who is next: waiting rows, shared out so that nobody's many rows hold up another's few."""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from itertools import count

from services.contracts.identity import UserKey
from services.generator.displacement import displaced
from services.generator.job import Job, Row


class FairQueue:
    """Rows wait per user and per generation.

    The next row is of the user with the fewest running rows, within the user of the generation with the fewest; among
    equals whoever was served longest ago.
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

    def admit(self, places: int, running: Iterable[Row], seat: Callable[[Row], bool]) -> list[Row]:
        """Takes up to `places` rows; `seat` says whether a row can run now (a slot for its adapter)."""
        held: Counter[UserKey | Job] = Counter()
        for row in running:
            held.update((row.job.user, row.job))
        order = [(held[user], self._turns[user], user) for user in self._waiting]
        heapq.heapify(order)
        admitted: list[Row] = []
        while order and len(admitted) < places:
            user = heapq.heappop(order)[2]
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
        """Puts rows that made room before the others of their generation, so that what was begun is ended first."""
        for row in rows:
            self.push([row])
            self._waiting[row.job.user][row.job].rotate(1)
            for party in (row.job.user, row.job):
                self._turns[party] = next(self._clock)

    def displaced(self, running: Sequence[Row], places: int, seatable: Callable[[Row], bool]) -> list[Row]:
        """The running rows that must make room; see services.generator.displacement."""
        return displaced(running, self._waiting, places, seatable)

    def drop(self, gone: Callable[[Job], bool]) -> int:
        """Removes the rows of every such generation and returns how many there were."""
        doomed = [job for jobs in self._waiting.values() for job in jobs if gone(job)]
        return sum(self._remove(job) for job in doomed)

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
