"""Everything that is kept of a user, piece by piece, each file checked before it leaves."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator

from papa_serving.contracts.errors import RevisionDamaged, RevisionNotFound
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.revisions import BASE, Revision, RevisionStore, UserDirectory, UserState

MANIFEST = "manifest.json"
CHUNK_BYTES = 2**20
PAGE = 100

File = tuple[str, bytes]


class Exporter:
    """Reads; changes nothing."""

    def __init__(self, users: UserDirectory, revisions: RevisionStore) -> None:
        self._users, self._revisions = users, revisions

    async def chosen(self, state: UserState, revision: str) -> Revision | None:
        """What to export: the named revision, or the current one; None while the base serves. Raises
        RevisionNotFound."""
        if revision in ("", BASE):
            return None if revision else state.current
        return await self._users.revision(state.user, revision)

    async def lineage(self, user: UserKey) -> AsyncIterator[Revision]:
        """Newest first."""
        before, more = "", True
        while more:
            page = await self._users.lineage(user, PAGE, before)
            for revision in page:
                yield revision
            more = len(page) == PAGE
            before = page[-1].revision if page else ""

    async def files(self, user: UserKey, revision: Revision) -> AsyncIterator[File]:
        """The revision's files, one at a time. Raises RevisionDamaged before anything that is not what was
        committed."""
        manifest = await self._manifest(user, revision)
        yield MANIFEST, manifest
        for name, expected in _named(manifest, revision).items():
            data = await self._get(user, revision, name)
            if await asyncio.to_thread(sha256, data) != expected:
                raise RevisionDamaged(f"{name} of revision {revision.revision} is not the one that was committed")
            yield name, data

    async def history(self, user: UserKey) -> AsyncIterator[File]:
        """The manifest of every revision whose files are whole; of the others the lineage's record is all there is."""
        async for revision in self.lineage(user):
            try:
                yield f"history/{revision.revision}.json", await self._manifest(user, revision)
            except RevisionDamaged:
                continue

    async def _manifest(self, user: UserKey, revision: Revision) -> bytes:
        data = await self._get(user, revision, MANIFEST)
        if sha256(data) != revision.sha256:
            raise RevisionDamaged(f"the manifest of revision {revision.revision} is not the one that was committed")
        return data

    async def _get(self, user: UserKey, revision: Revision, name: str) -> bytes:
        try:
            return await self._revisions.get(user, revision.revision, name)
        except RevisionNotFound as error:
            raise RevisionDamaged(f"revision {revision.revision} lacks {name}") from error


def _named(manifest: bytes, revision: Revision) -> dict[str, str]:
    """The files that a manifest vouches for, with the sha256 of each."""
    try:
        return {name: entry["sha256"] for name, entry in json.loads(manifest)["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RevisionDamaged(f"the manifest of revision {revision.revision} is not one of ours") from error


def sha256(data: bytes) -> str:
    """Hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def pieces(data: bytes) -> list[bytes]:
    """At least one."""
    return [data[at : at + CHUNK_BYTES] for at in range(0, len(data) or 1, CHUNK_BYTES)]
