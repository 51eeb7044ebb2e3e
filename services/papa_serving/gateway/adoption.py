"""An adapter from elsewhere on its way into a user's lineage: checked and packed by the engine, then committed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping

from papa_serving.contracts.errors import LineageConflict, StorageUnavailable, UserDeleted
from papa_serving.contracts.feedback import FeedbackLog
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.revisions import Revision, RevisionStore, UserDirectory, UserState
from papa_serving.gateway.engine import Engine
from papa_serving.logs import request_id
from papa_serving.stubs.engine.v1 import engine_pb2

log = logging.getLogger(__name__)

ATTEMPTS = 5
PAUSE = 0.2


class Adopter:
    """Commits as a trainer does: files first, then the one script, which a changed pointer or a deletion stops."""

    def __init__(self, engine: Engine, users: UserDirectory, revisions: RevisionStore, feedback: FeedbackLog) -> None:
        self._engine, self._users, self._revisions, self._feedback = engine, users, revisions, feedback

    async def adopt(self, user: UserKey, backbone: str, files: Mapping[str, bytes]) -> Revision:
        """The revision that was made of it. Raises InvalidRequest, UserDeleted, GeneratorUnavailable,
        StorageUnavailable; LineageConflict when updates keep coming between."""
        created_at = time.time()
        for attempt in range(1, ATTEMPTS + 1):
            state = await self._users.get(user)
            parent = state.current.revision if state.current is not None else ""
            packed = await self._engine.pack_adapter(
                engine_pb2.PackAdapterRequest(
                    request_id=request_id.get(), backbone=backbone, parent=parent, created_at=created_at, files=files
                )
            )
            revision = _record(state, parent, packed.sha256, created_at)
            try:
                await self._revisions.put(user, revision.revision, dict(packed.files))
                await self._commit(user, revision)
            except LineageConflict:
                if attempt == ATTEMPTS:
                    raise
                log.info("an import lost its parent and is done again")
            except UserDeleted:
                await self._revisions.delete_user(user)
                raise
            else:
                break
        return revision

    async def _commit(self, user: UserKey, revision: Revision) -> None:
        """An unknown outcome is asked for again: the script answers the same for the same revision."""
        for _ in range(ATTEMPTS - 1):
            try:
                await self._feedback.adopt(user, revision)
            except StorageUnavailable:
                await asyncio.sleep(PAUSE)
            else:
                return
        await self._feedback.adopt(user, revision)


def _record(state: UserState, parent: str, sha256: str, created_at: float) -> Revision:
    return Revision(
        revision=f"{state.revisions + 1:06d}-{sha256[:8]}",
        parent=parent,
        created_at=created_at,
        sha256=sha256,
        events_applied=0,
        events_total=0 if state.current is None else state.current.events_total,
    )
