"""Who is next: waiting rows, shared out so that nobody's many rows hold up another's few."""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count
from types import MappingProxyType

from papa_serving.contracts.identity import UserKey
from papa_serving.generator.displacement import QUANTUM, beyond, displaced
from papa_serving.generator.job import Job, Row
from papa_serving.generator.shares import Wanted


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

    def wanted(self, running: Iterable[Row]) -> dict[UserKey, Wanted]:
        """What everybody still wants, of the running rows and of those here."""
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
        places: int,
        running: Iterable[Row],
        seat: Callable[[Row], bool],
        limits: Mapping[UserKey, int] = MappingProxyType({}),
    ) -> list[Row]:
        """Takes up to `places` rows, and of a user not more than may run; `seat` says whether a row can run now (a slot
        for its adapter)."""
        held: Counter[UserKey | Job] = Counter()
        for row in running:
            held.update((row.job.user, row.job))
        order = [(held[user], self._turns[user], user) for user in self._waiting]
        heapq.heapify(order)
        admitted: list[Row] = []
        while order and len(admitted) < places:
            user = heapq.heappop(order)[2]
            if held[user] >= limits.get(user, places + held[user]):
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
        """Puts rows that made room before the others of their generation, so that what was begun is ended first."""
        for row in rows:
            self._put_back(row)
            row.stint = 0
            for party in (row.job.user, row.job):
                self._turns[party] = next(self._clock)

    def pause(self, rows: Iterable[Row]) -> None:
        """Puts rows beyond their user's limit back, to be that user's next ones until they have had their quantum."""
        for row in rows:
            self._put_back(row)
            if row.stint < QUANTUM:
                self._turns[row.job] = -1
            else:
                row.stint, self._turns[row.job] = 0, next(self._clock)

    def beyond(self, running: Sequence[Row], limits: Mapping[UserKey, int]) -> list[Row]:
        """The running rows that may not run in the step to come."""
        return beyond(running, limits)

    def displaced(
        self,
        running: Sequence[Row],
        places: int,
        seatable: Callable[[Row], bool],
        limits: Mapping[UserKey, int] = MappingProxyType({}),
    ) -> list[Row]:
        """The running rows that must make room; see papa_serving.generator.displacement."""
        return displaced(running, self._waiting, places, seatable, limits)

    def drop(self, gone: Callable[[Job], bool]) -> Counter[UserKey]:
        """Removes the rows of every such generation; how many of whom there were."""
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
