"""Connects an update to the user's lineage: the weights that it starts from, and the revision that it becomes."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass

from papa_serving import metrics, tracing
from papa_serving.contracts.errors import Fenced, RevisionDamaged, RevisionNotFound, StorageDamaged, StorageUnavailable
from papa_serving.contracts.feedback import FeedbackLog
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.revisions import Revision, RevisionStore, UserDirectory, UserState, revision_name
from papa_serving.trainer.fault import reach
from papa_serving.trainer.gathering import Gathering
from papa_serving.trainer.ownership import Ownership
from papa_serving.trainer.updater import Trained, Updater, UserUpdate, Weights
from papa_serving.trainer.worker import Worker

_log = logging.getLogger(__name__)

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0
"""Seconds between two attempts to learn a commit's outcome. They double each time and stay shorter than a lease."""


@dataclass(frozen=True)
class Job:
    """One user's update in progress; `state` is the user's state when it began."""

    gathering: Gathering
    state: UserState
    update: UserUpdate


class Parents:
    """Fetches and verifies the weights that an update starts from.

    When the files of the pointer's revision are damaged or gone, training starts from the newest good ancestor, or from
    a fresh adapter if there is none. What the damaged revisions had learnt since is lost. The pointer is still recorded
    as the parent, because a lineage records the order in which revisions replaced one another. The commit compares the
    parent with the pointer, and naming the ancestor would fork the chain. The new revision is undamaged, so it is
    served.
    """

    def __init__(self, users: UserDirectory, revisions: RevisionStore, updater: Updater, worker: Worker) -> None:
        self._users = users
        self._revisions = revisions
        self._updater = updater
        self._worker = worker

    async def weights(self, user: UserKey, current: Revision | None) -> Weights:
        """The verified start of the user's next update. Raises StorageUnavailable."""
        candidate = current
        while candidate is not None:
            try:
                return await self._verified(user, candidate)
            except (RevisionDamaged, RevisionNotFound) as error:
                metrics.ADAPTER_REFUSED.labels(error.reason).inc()
                _log.error(
                    "a revision is damaged, trying its parent",
                    extra={"revision": candidate.name, "why": error.message},
                )
            candidate = await self._users.parent(user, candidate)
        return Weights()

    async def _verified(self, user: UserKey, revision: Revision) -> Weights:
        names = self._updater.files
        contents = await asyncio.gather(*(self._revisions.get(user, revision.name, name) for name in names))
        weights = Weights(dict(zip(names, contents, strict=True)), revision.sha256)
        await self._worker.run(self._updater.verify, weights)
        return weights


class Promotion:
    """Makes trained weights the user's current revision.

    Files of a revision whose commit failed (another owner, a rollback meanwhile, a crash) are not removed here. A
    revision's name is derived from its content, so the next attempt, here or by another owner, may write and commit the
    same revision. Removing its files could then remove those of the current revision. papa_serving.store.census sweeps
    the files once no update can commit them any more.
    """

    def __init__(self, log: FeedbackLog, revisions: RevisionStore, ownership: Ownership) -> None:
        self._feedback = log
        self._revisions = revisions
        self._ownership = ownership

    async def promote(self, job: Job, trained: Trained) -> Revision:
        """Raises Fenced, LineageConflict, UserDeleted; StorageUnavailable only while nothing was committed;
        StorageDamaged."""
        revision = _record(job, trained)
        user = job.update.batch.user
        with tracing.span("write revision"):
            await self._revisions.put(user, revision.name, trained.files)
        reach("after_blob")
        with tracing.span("commit"):
            await self._commit(job, revision)
        reach("after_commit")
        _measure(job, trained)
        return revision

    async def _commit(self, job: Job, revision: Revision) -> None:
        """Repeats the commit until its outcome is known: without a reply, the events may already be applied.

        Damaged data stays damaged, so it is not asked again: that would hold up all the trainer's users for one.
        """
        pause = _FIRST_PAUSE
        while True:
            if not self._ownership.holds(job.gathering.lease):
                raise Fenced("the lease was lost during the update")
            reach("before_commit")
            try:
                await self._feedback.commit(job.gathering.lease, job.update.batch, revision)
            except StorageDamaged:
                raise
            except StorageUnavailable as error:
                _log.warning(
                    "the outcome of a commit is unknown, asking again: %s", error, extra={"revision": revision.name}
                )
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                return


def pointer(state: UserState) -> str:
    """The user's current revision, "" for the base. A lineage calls it the parent of the next one."""
    return state.current.name if state.current is not None else ""


def _record(job: Job, trained: Trained) -> Revision:
    events, before = job.update.batch.events, job.state.current
    return Revision(
        name=revision_name(job.state.revisions + 1, trained.sha256),
        parent=job.update.parent,
        created_at=time.time(),
        sha256=trained.sha256,
        events_applied=len(events),
        events_total=len(events) + (before.events_total if before is not None else 0),
        first_sequence=events[0].sequence,
        last_sequence=events[-1].sequence,
        accepted_at=events[-1].accepted_at,
        traceparent=tracing.current().traceparent,
        remembered=trained.remembered,
    )


def _measure(job: Job, trained: Trained) -> None:
    metrics.UPDATES.labels("committed").inc()
    metrics.UPDATE_LABELS.observe(len(job.update.batch.events))
    metrics.UPDATE_LOSS.observe(trained.loss)
    metrics.REVISIONS.labels("trained").inc()
    metrics.REVISION_NUMBER.observe(job.state.revisions + 1)
    metrics.REVISION_BYTES.inc(sum(map(len, trained.files.values())))
    now = time.time()
    for event in job.update.batch.events:
        metrics.FEEDBACK_TO_COMMIT_SECONDS.observe(max(0.0, now - event.accepted_at))
