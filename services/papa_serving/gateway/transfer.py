"""Adapters and everything else of a user on their way out of the service, and adapters on their way in."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import AsyncIterator, Mapping

from papa_serving.contracts.errors import (
    LineageConflict,
    RevisionDamaged,
    RevisionNotFound,
    StorageUnavailable,
    UserDeleted,
)
from papa_serving.contracts.feedback import FeedbackLog
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.revisions import BASE, Revision, RevisionStore, UserDirectory, UserState, revision_name
from papa_serving.gateway.engine_client import EngineClient
from papa_serving.logs import request_id
from papa_serving.stubs.engine.v1 import engine_pb2

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
CHUNK_BYTES = 2**20
PAGE = 100
ATTEMPTS = 5
PAUSE = 0.2

File = tuple[str, bytes]


class Exporter:
    """Reads everything that is kept of a user, piece by piece, and checks each file before it leaves."""

    def __init__(self, users: UserDirectory, revisions: RevisionStore) -> None:
        self._users, self._revisions = users, revisions

    async def chosen(self, state: UserState, revision: str) -> Revision | None:
        """Returns the named revision or the current one; None where that is the base. Raises RevisionNotFound."""
        if revision in ("", BASE):
            return None if revision else state.current
        return await self._users.revision(state.user, revision)

    async def lineage(self, user: UserKey) -> AsyncIterator[Revision]:
        """Yields all revisions of the user, newest first."""
        before, more = "", True
        while more:
            page = await self._users.lineage(user, PAGE, before)
            for revision in page:
                yield revision
            more = len(page) == PAGE
            before = page[-1].name if page else ""

    async def files(self, user: UserKey, revision: Revision) -> AsyncIterator[File]:
        """Yields the revision's files. Raises RevisionDamaged instead of yielding a file that is not the committed
        one."""
        manifest = await self._manifest(user, revision)
        yield MANIFEST, manifest
        for name, expected in _named(manifest, revision).items():
            data = await self._get(user, revision, name)
            if await asyncio.to_thread(sha256, data) != expected:
                raise RevisionDamaged(f"{name} of revision {revision.name} is not the one that was committed")
            yield name, data

    async def history(self, user: UserKey) -> AsyncIterator[File]:
        """Yields the manifest of every revision whose manifest is undamaged. The lineage's record covers the others."""
        async for revision in self.lineage(user):
            try:
                yield f"history/{revision.name}.json", await self._manifest(user, revision)
            except RevisionDamaged:
                continue

    async def _manifest(self, user: UserKey, revision: Revision) -> bytes:
        data = await self._get(user, revision, MANIFEST)
        if sha256(data) != revision.sha256:
            raise RevisionDamaged(f"the manifest of revision {revision.name} is not the one that was committed")
        return data

    async def _get(self, user: UserKey, revision: Revision, name: str) -> bytes:
        try:
            return await self._revisions.get(user, revision.name, name)
        except RevisionNotFound as error:
            raise RevisionDamaged(f"revision {revision.name} lacks {name}") from error


class Adopter:
    """Brings an adapter from elsewhere into a user's lineage.

    It commits as a trainer does: the files first, then one script, which refuses a changed pointer or a deleted user.
    """

    def __init__(
        self, engine: EngineClient, users: UserDirectory, revisions: RevisionStore, feedback: FeedbackLog
    ) -> None:
        self._engine, self._users, self._revisions, self._feedback = engine, users, revisions, feedback

    async def adopt(self, user: UserKey, backbone_hash: str, files: Mapping[str, bytes]) -> Revision:
        """Has the engine check and pack `files`, commits them and returns the new revision.

        Raises InvalidRequest, UserDeleted, GeneratorUnavailable, StorageUnavailable; LineageConflict when the user's
        own updates win ATTEMPTS times.
        """
        created_at = time.time()
        for attempt in range(1, ATTEMPTS + 1):
            state = await self._users.get(user)
            parent = state.current.name if state.current is not None else ""
            packed = await self._engine.pack_adapter(
                engine_pb2.PackAdapterRequest(
                    request_id=request_id.get(),
                    backbone=backbone_hash,
                    parent=parent,
                    created_at=created_at,
                    files=files,
                )
            )
            revision = _record(state, parent, packed.sha256, created_at)
            try:
                await self._revisions.put(user, revision.name, dict(packed.files))
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
        """Repeats a commit whose outcome is unknown; the script answers the same for the same revision."""
        for _ in range(ATTEMPTS - 1):
            try:
                await self._feedback.adopt(user, revision)
            except StorageUnavailable:
                await asyncio.sleep(PAUSE)
            else:
                return
        await self._feedback.adopt(user, revision)


def _named(manifest: bytes, revision: Revision) -> dict[str, str]:
    """File names and sha256 digests that a manifest lists. Raises RevisionDamaged."""
    try:
        return {name: entry["sha256"] for name, entry in json.loads(manifest)["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RevisionDamaged(f"the manifest of revision {revision.name} is not one of ours") from error


def sha256(data: bytes) -> str:
    """The digest in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def pieces(data: bytes) -> list[bytes]:
    """Splits data into chunks of at most CHUNK_BYTES; empty data gives one empty chunk."""
    return [data[at : at + CHUNK_BYTES] for at in range(0, len(data) or 1, CHUNK_BYTES)]


def _record(state: UserState, parent: str, sha256: str, created_at: float) -> Revision:
    return Revision(
        name=revision_name(state.revisions + 1, sha256),
        parent=parent,
        created_at=created_at,
        sha256=sha256,
        events_applied=0,
        events_total=0 if state.current is None else state.current.events_total,
    )
