"""The trainer's loop: read → update → write → commit. Leases are renewed independently of running updates."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from papa_serving import metrics
from papa_serving.contracts.errors import StorageDamaged, StorageUnavailable
from papa_serving.contracts.feedback import FeedbackLog, PartitionStats
from papa_serving.contracts.revisions import RevisionStore, UserDirectory
from papa_serving.settings import TrainerSettings
from papa_serving.store.census import sweep
from papa_serving.trainer.intake import Intake
from papa_serving.trainer.ownership import Ownership, pause
from papa_serving.trainer.plan import plan
from papa_serving.trainer.training import Training
from papa_serving.trainer.updater import Updater
from papa_serving.trainer.worker import Worker

_log = logging.getLogger(__name__)

OBSERVATION_SECONDS = 2.0
"""Seconds between two measurements of the backlog, as often as the supervisor polls the trainers."""
SWEEP_SECONDS = 3600.0
"""Seconds between two sweeps of the revision store: far less than the life of a tombstone, which a sweep must see."""
_STORAGE_PAUSE = 0.5
"""Seconds before the log is read again after storage failed."""
_LEAVE_SECONDS = 3.0
"""Seconds that the parts of the loop, and then the return of the leases, may take at the end."""


@dataclass(frozen=True)
class Backlog:
    """The backlog of the owned partitions, and the share of time in which the trainer trains; the input of scaling."""

    partitions: int = 0
    events: int = 0
    oldest_age: float = 0.0
    busy: float = 0.0


class BusyTime:
    """Measures the share of its time that the trainer works: a context manager around the work."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._asked = clock()
        self._worked = 0.0
        self._begun: float | None = None

    def __enter__(self) -> None:
        self._begun = self._clock()

    def __exit__(self, *_: object) -> None:
        self._settle(self._clock())
        self._begun = None

    def share(self) -> float:
        """The share of the time since the last call, between 0 and 1; work in progress counts up to now."""
        now = self._clock()
        if self._begun is not None:
            self._settle(now)
        worked, elapsed = self._worked, now - self._asked
        self._worked, self._asked = 0.0, now
        return min(1.0, worked / elapsed) if elapsed > 0 else 0.0

    def _settle(self, now: float) -> None:
        assert self._begun is not None
        self._worked += now - self._begun
        self._begun = now


class TrainerLoop:
    """One trainer. `member` must be unique to this process (see Ownership)."""

    def __init__(
        self,
        member: str,
        log: FeedbackLog,
        users: UserDirectory,
        revisions: RevisionStore,
        updater: Updater,
        settings: TrainerSettings,
    ) -> None:
        self.backlog = Backlog()
        self._feedback = log
        self._users, self._revisions = users, revisions
        self._settings = settings
        self._ownership = Ownership(log, member, settings.lease)
        worker = Worker()
        self._intake = Intake(log, self._ownership, updater, worker)
        self._training = Training(log, users, revisions, updater, self._ownership, self._intake, worker)
        self._busy = BusyTime()
        self._stop, self._end = asyncio.Event(), asyncio.Event()

    def stop(self) -> None:
        """Asks `run` to end. Call it in the thread of the event loop."""
        self._stop.set()

    async def run(self) -> None:
        """Runs until `stop`. Then the running update has `grace_seconds` to be committed, and the leases are released.

        If a part of the loop fails unexpectedly, its error is raised, also after the leases are released. The events of
        an abandoned update stay in the log.
        """
        parts = self._work(), self._ownership.keep(self._end), self._observe(), self._sweep()
        tasks = [asyncio.create_task(part) for part in parts]
        stop = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait([stop, *tasks], return_when=asyncio.FIRST_COMPLETED)
            if self._stop.is_set():
                await asyncio.wait(tasks[:1], timeout=self._settings.grace_seconds)
        finally:
            await self._finish([stop, *tasks])
        for task in tasks:
            if task.done() and not task.cancelled():
                task.result()

    async def _finish(self, tasks: list[asyncio.Task[Any]]) -> None:
        # Both an event and a cancellation: before Python 3.12 a cancellation that coincides with the end of
        # asyncio.wait_for is lost. redis-py calls it for every command, so the loop might never end.
        self._stop.set()
        self._end.set()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=_LEAVE_SECONDS)
        with suppress(StorageUnavailable, TimeoutError):
            await asyncio.wait_for(self._ownership.leave(), _LEAVE_SECONDS)

    async def _work(self) -> None:
        while not self._stop.is_set():
            try:
                busy = await self._round()
            except StorageUnavailable as error:
                _log.warning("cannot read feedback: %s", error)
                await pause(self._stop, _STORAGE_PAUSE)
            else:
                if not busy:
                    await pause(self._stop, self._settings.poll)

    async def _round(self) -> bool:
        """Reads once and trains the users who are ready; returns whether there were any."""
        await self._intake.look()
        work = plan(self._intake.gatherings.values(), self._settings, time.monotonic(), time.time())
        for pick in work.exhausted:
            await self._training.bury(pick)
        for group in work.groups:
            if self._stop.is_set():
                break
            with self._busy:
                await self._training.train(group)
        return bool(work.groups)

    async def _sweep(self) -> None:
        """Removes files that no lineage names, every SWEEP_SECONDS."""
        while not self._end.is_set():
            await pause(self._end, SWEEP_SECONDS)
            try:
                removed = 0 if self._end.is_set() else await sweep(self._users, self._revisions)
            except StorageUnavailable as error:
                _log.warning("cannot sweep the revision store: %s", error)
            else:
                if removed:
                    _log.info("swept revisions that no lineage names", extra={"revisions": removed})

    async def _observe(self) -> None:
        while not self._end.is_set():
            try:
                stats = [each for each in [await self._stats(p) for p in tuple(self._ownership.leases)] if each]
            except StorageUnavailable as error:
                _log.warning("cannot measure the backlog: %s", error)
            else:
                oldest = max((one.oldest_age for one in stats), default=0.0)
                self.backlog = Backlog(len(stats), sum(one.backlog for one in stats), oldest, self._busy.share())
                metrics.FEEDBACK_BACKLOG.set(self.backlog.events)
                metrics.FEEDBACK_OLDEST_AGE.set(self.backlog.oldest_age)
            await pause(self._end, OBSERVATION_SECONDS)

    async def _stats(self, partition: int) -> PartitionStats | None:
        """None for a partition that cannot be read, so that the others are measured all the same."""
        try:
            return await self._feedback.stats(partition)
        except StorageDamaged:  # the intake says so, and why
            return None
