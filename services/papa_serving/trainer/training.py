"""Runs one joint update, from ready events to committed revisions, and handles the failures of each user."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from time import monotonic, time
from typing import TypeVar

from papa_serving import metrics, tracing
from papa_serving.contracts.errors import (
    Fenced,
    LineageConflict,
    StorageDamaged,
    StorageUnavailable,
    StoreAhead,
    UserDeleted,
)
from papa_serving.contracts.feedback import FeedbackLog, UserBatch
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.revisions import RevisionStore, UserDirectory
from papa_serving.store.census import refuse_ahead
from papa_serving.trainer.fault import reach
from papa_serving.trainer.intake import Intake, bury
from papa_serving.trainer.lineage import Job, Parents, Promotion, pointer
from papa_serving.trainer.ownership import Ownership
from papa_serving.trainer.plan import Group, Pick
from papa_serving.trainer.updater import Refused, Trained, Updater, UserUpdate
from papa_serving.trainer.worker import Worker

_log = logging.getLogger(__name__)

STORAGE_PAUSE = 1.0
"""Seconds before the retry for a user whose revision could not be read or written."""

REPAIR_PAUSE = 15.0
"""Seconds before the retry for a user whose revisions Redis has lost, or whose data there are damaged."""

T = TypeVar("T")


class Training:
    """Trains groups. A failure of one user affects neither other users nor the order of the user's own events."""

    def __init__(
        self,
        log: FeedbackLog,
        users: UserDirectory,
        revisions: RevisionStore,
        updater: Updater,
        ownership: Ownership,
        intake: Intake,
        worker: Worker,
    ) -> None:
        self._feedback = log
        self._users = users
        self._revisions = revisions
        self._updater = updater
        self._ownership = ownership
        self._intake = intake
        self._worker = worker
        self._parents = Parents(users, revisions, updater, self._worker)
        self._promotion = Promotion(log, revisions, ownership)

    async def train(self, group: Group) -> None:
        """Trains all users of the group in one update, then commits each user's revision separately."""
        with self._ownership.busy(pick.gathering.lease.partition for pick in group.picks):
            began = time()
            prepared = await asyncio.gather(*(self._settled(p, self._prepare(p)) for p in group.picks))
            jobs = [(pick, job) for pick, job in zip(group.picks, prepared, strict=True) if job is not None]
            computing = time()
            outcomes = await self._compute([job for _, job in jobs], group.step_scale)
            times = (began, computing, time())
            finished = (self._finish(job, outcome, times) for (_, job), outcome in zip(jobs, outcomes, strict=True))
            await asyncio.gather(*(self._settled(pick, end) for (pick, _), end in zip(jobs, finished, strict=True)))

    async def bury(self, pick: Pick) -> None:
        """Turns events without remaining attempts into dead letters. Each was alone in its last attempts."""
        reason = pick.ready.reason or "the trainer ended while training on it"
        kind = "refused" if pick.ready.refusals else "failed"
        events = list(pick.ready.batch.events)
        text = f"{pick.ready.failures} attempts failed: {reason}"

        async def move() -> None:
            await bury(self._feedback, pick.gathering, events, kind, text)
            pick.gathering.done(pick.ready.batch)

        await self._settled(pick, move())

    async def _prepare(self, pick: Pick) -> Job | None:
        """Counts the attempt before anything that could kill the process, then fetches the start of the update."""
        gathering, batch = pick.gathering, pick.ready.batch
        uncounted = tuple(event for event in batch.events if event.entry_id not in gathering.counted)
        if uncounted:
            counts = await self._feedback.begin_attempt(gathering.lease, UserBatch(batch.user, uncounted))
            if not all(counts):  # gone from the log: deleted since they were read
                self._intake.forget(gathering)
                return None
            gathering.counted |= {event.entry_id for event in uncounted}
        state = await self._users.get(batch.user)
        await refuse_ahead(self._users, self._revisions, batch.user.digest)
        weights = await self._parents.weights(batch.user, state.current)
        return Job(gathering, state, UserUpdate(batch, pointer(state), weights))

    async def _compute(self, jobs: list[Job], step_scale: float) -> list[Trained | Refused | None]:
        """Runs the update. If it raises, the cause is unknown: each result is None, and each user is retried alone."""
        if not jobs:
            return []
        begun = monotonic()
        try:
            outcomes = await self._worker.run(self._updater.update, [job.update for job in jobs], step_scale)
        except Exception as error:
            _log.exception("an update failed", extra={"users": len(jobs)})
            metrics.UPDATES.labels("failed").inc(len(jobs))
            for job in jobs:
                job.gathering.failed(job.update.batch, f"{type(error).__name__}: {error}")
            return [None] * len(jobs)
        metrics.UPDATE_SECONDS.observe(monotonic() - begun)
        reach("after_training")
        return list(outcomes)

    async def _finish(self, job: Job, outcome: Trained | Refused | None, times: tuple[float, float, float]) -> None:
        """Completes one user's part in a separate trace, which is linked to the trace of each event.

        `times` are the beginning of the update, and the beginning and the end of its computation.
        """
        events = job.update.batch.events
        links = dict.fromkeys(event.traceparent for event in events)
        attributes: dict[str, tracing.Value] = {"papa.events": len(events), "papa.parent": job.update.parent}
        with tracing.span("update", "consumer", parent="", links=links, attributes=attributes, at=times[0]) as span:
            tracing.record("train", *times[1:])
            await self._conclude(job, outcome, span)

    async def _conclude(self, job: Job, outcome: Trained | Refused | None, span: tracing.Span) -> None:
        batch = job.update.batch
        about: dict[str, object] = {"user": batch.user.digest}
        if isinstance(outcome, Refused):
            job.gathering.failed(batch, f"{outcome.reason}: {outcome.detail}", refused=True)
            metrics.UPDATES.labels("refused").inc()
            metrics.GATE_REFUSALS.labels(outcome.reason).inc()
            span.settle(f"REFUSED_{outcome.reason.upper()}")
            _log.warning("the gate refused an update: %s", outcome.detail, extra=about | {"reason": outcome.reason})
        elif outcome is not None:
            try:
                revision = await self._promotion.promote(job, outcome)
            except LineageConflict as error:
                span.settle(error.reason)
                await self._reconsider(job, error)
                return
            job.gathering.done(batch)
            about |= {"revision": revision.name, "events": revision.events_applied}
            span.note({"papa.revision": revision.name, "papa.loss": outcome.loss})
            _log.info("committed", extra=about)
        else:
            span.settle("FAILED")

    async def _reconsider(self, job: Job, error: LineageConflict) -> None:
        """Handles a rollback or reset during the update: the events stay and are trained on again from the new pointer.

        If the pointer has not moved, the memory of this process differs from the log, so the log is read again.
        """
        metrics.UPDATES.labels("conflict").inc()
        _log.info("an update lost its parent and is done again: %s", error)
        if pointer(await self._users.get(job.update.batch.user)) == job.update.parent:
            self._intake.forget(job.gathering)

    async def _settled(self, pick: Pick, work: Awaitable[T]) -> T | None:
        """Returns the result of the work; None after an error, which has been handled for this user's events."""
        gathering, user = pick.gathering, pick.ready.batch.user
        try:
            return await work
        except Fenced:
            metrics.UPDATES.labels("fenced").inc()
            self._ownership.lost(gathering.lease)
            self._intake.forget(gathering)
        except UserDeleted:
            gathering.drop(user)
            await self._remove_files(user)
        except StoreAhead as error:
            metrics.UPDATES.labels("behind").inc()
            _log.error("an update waits for a repair: %s", error, extra={"user": user.digest})
            gathering.postpone(user, monotonic() + REPAIR_PAUSE)
        except StorageDamaged as error:
            # Counted like any failure: the begun attempt is the log's, and the next one asks it which events are left.
            metrics.UPDATES.labels("failed").inc()
            _log.error("an update met damaged data: %s", error, extra={"user": user.digest})
            gathering.failed(pick.ready.batch, f"{error.reason}: {error.message}")
            gathering.postpone(user, monotonic() + REPAIR_PAUSE)
        except StorageUnavailable as error:
            _log.warning("an update waits for storage: %s", error)
            gathering.postpone(user, monotonic() + STORAGE_PAUSE)
        return None

    async def _remove_files(self, user: UserKey) -> None:
        """Removes the files of an update whose user was deleted meanwhile, however long the store takes."""
        while True:
            try:
                await self._revisions.delete_user(user)
            except StorageUnavailable as error:
                _log.error("the files of a deleted user are still there: %s", error)
                await asyncio.sleep(STORAGE_PAUSE)
            else:
                return
