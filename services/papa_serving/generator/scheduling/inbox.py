"""Passes work to the engine's thread: reservations, arrivals, cancellations and the stop."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType

from papa_serving import metrics
from papa_serving.contracts.errors import GeneratorUnavailable, QueueFull
from papa_serving.contracts.identity import UserKey
from papa_serving.generator.job import Job
from papa_serving.generator.scheduling.cost import Throughput


class Inbox:
    """The bounded front of the queue. Any thread may call; `wait`, `take`, `left` and `close` are the engine's.

    A user may hold at most as much of the queue as is free in it: however many rows one user sends, others find room.
    """

    def __init__(self, max_queued_rows: int, throughput: Throughput) -> None:
        self._limit = max_queued_rows
        self._throughput = throughput
        self._wake = threading.Condition()
        self._arrived: list[Job] = []
        self._queued_rows = 0
        self._rows_of: Counter[UserKey] = Counter()
        self._cancelled = False
        self._woken = False
        self._stopping = False
        self._closed = False

    def reserve(self, user: UserKey, rows: int, steps: int) -> None:
        """Reserves room in the queue for the rows of a job to come. Raises QueueFull, GeneratorUnavailable.

        An empty queue takes any job, so that a job larger than the queue is not refused for ever.
        """
        with self._wake:
            if self._closed:
                raise ended()
            mine = self._rows_of[user]
            excess = mine + rows - (self._limit - self._queued_rows)
            if self._queued_rows and excess > 0:
                raise QueueFull(
                    f"the engine's queue holds {self._queued_rows} rows of {self._limit}, {mine} of them this user's",
                    retry_after=self._throughput.seconds(excess * steps),
                )
            self._count(user, rows)

    def release(self, user: UserKey, rows: int) -> None:
        """Gives back a reservation whose job was never submitted."""
        with self._wake:
            self._count(user, -rows)

    def left(self, rows_of: Mapping[UserKey, int], came_back: Mapping[UserKey, int] = MappingProxyType({})) -> None:
        """Counts the rows of each user that have left the queue, and those that are waiting in it again."""
        with self._wake:
            for user, rows in rows_of.items():
                self._count(user, -rows)
            for user, rows in came_back.items():
                self._count(user, rows)

    def submit(self, job: Job) -> None:
        """Hands over a job whose rows are reserved."""
        with self._wake:
            if not self._closed:
                self._arrived.append(job)
                self._wake.notify()
                return
        job.deliver(ended())

    def cancel(self, job: Job) -> None:
        """Frees the rows of a submitted job before the next step; harmless when it is done."""
        with self._wake:
            job.cancelled = self._cancelled = True
            self._wake.notify()

    def wake(self) -> None:
        """Makes `wait` return once, for work that does not come through here."""
        with self._wake:
            self._woken = True
            self._wake.notify()

    def stop(self) -> None:
        """Makes `wait` return False from now on."""
        with self._wake:
            self._stopping = True
            self._wake.notify()

    def wait(self, busy: bool) -> bool:
        """Returns at once when `busy`, else when something comes; False when it is time to stop."""
        with self._wake:
            self._wake.wait_for(lambda: busy or self._stopping or self._cancelled or self._arrived or self._woken)
            self._woken = False
            return not self._stopping

    def take(self) -> tuple[list[Job], bool]:
        """Returns the jobs that arrived since the last call, and whether any job was cancelled since then."""
        with self._wake:
            arrived, cancelled = self._arrived, self._cancelled
            self._arrived, self._cancelled = [], False
            return arrived, cancelled

    def close(self) -> list[Job]:
        """Refuses all further work; returns the jobs that had arrived."""
        with self._wake:
            self._closed = True
        return self.take()[0]

    def _count(self, user: UserKey, rows: int) -> None:
        self._queued_rows += rows
        self._rows_of[user] += rows
        if not self._rows_of[user]:
            del self._rows_of[user]
        metrics.ENGINE_QUEUED_ROWS.set(self._queued_rows)


def ended() -> GeneratorUnavailable:
    """The error of every job once the engine has ended."""
    return GeneratorUnavailable("this engine has ended; another replica may answer", retry_after=1.0)
