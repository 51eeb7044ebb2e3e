"""Where an update starts: the weights behind the pointer, or the newest good ones before them."""

from __future__ import annotations

import asyncio
import logging

from papa_serving import metrics
from papa_serving.contracts.errors import RevisionDamaged, RevisionNotFound
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.revisions import Revision, RevisionStore, UserDirectory
from papa_serving.trainer.updater import Updater, Weights
from papa_serving.trainer.worker import Worker

_log = logging.getLogger(__name__)


class Parents:
    """Fetches and verifies the weights that an update starts from.

    When the files of the pointer's revision are damaged or gone, training starts from the newest good ancestor, and
    from a fresh adapter when there is none; what the damaged revisions had learnt beyond it is lost, which is all
    that can be done without their bytes. The lineage, however, keeps the pointer as the parent: it records in which
    order revisions replaced one another, the commit compares the pointer with it, and naming the ancestor would make
    a fork out of a chain. The new revision is whole, so that from it on the user is served again.
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
                    extra={"revision": candidate.revision, "why": error.message},
                )
            candidate = await self._users.parent(user, candidate)
        return Weights()

    async def _verified(self, user: UserKey, revision: Revision) -> Weights:
        names = self._updater.files
        contents = await asyncio.gather(*(self._revisions.get(user, revision.revision, name) for name in names))
        weights = Weights(dict(zip(names, contents, strict=True)), revision.sha256)
        await self._worker.run(self._updater.verify, weights)
        return weights
