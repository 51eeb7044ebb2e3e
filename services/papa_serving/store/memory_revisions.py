"""Revisions in memory: the stub that passes the same tests as the file store."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Mapping

from papa_serving.contracts.errors import RevisionNotFound
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.revisions import Holding, RevisionStore
from papa_serving.store.revision_names import plain


class MemoryRevisionStore(RevisionStore):
    """For tests of one process."""

    def __init__(self) -> None:
        self._files: dict[tuple[UserKey, str], dict[str, bytes]] = {}

    async def put(self, user: UserKey, revision: str, files: Mapping[str, bytes]) -> None:
        """The first writing stays."""
        self._files.setdefault((user, plain(revision)), {plain(name): bytes(data) for name, data in files.items()})

    async def get(self, user: UserKey, revision: str, name: str) -> bytes:
        """One file."""
        try:
            return self._files[user, plain(revision)][plain(name)]
        except KeyError:
            raise RevisionNotFound(f"the store holds no {name} of revision {revision}", field="revision") from None

    async def delete_user(self, user: UserKey) -> int:
        """All of them."""
        mine = [key for key in self._files if key[0] == user]
        for key in mine:
            del self._files[key]
        return len(mine)

    async def holdings(self, digest: str = "") -> AsyncIterator[Holding]:
        """All as old as can be."""
        of: dict[str, dict[str, float]] = {}
        for user, revision in self._files:
            if digest in ("", user.digest):
                of.setdefault(user.digest, {})[revision] = math.inf
        for owner, revisions in of.items():
            yield Holding(owner, revisions)

    async def read(self, digest: str, revision: str, name: str) -> bytes:
        """By looking at all."""
        for (user, known), files in self._files.items():
            if (user.digest, known) == (digest, revision) and name in files:
                return files[name]
        raise RevisionNotFound(f"the store holds no {name} of revision {revision}", field="revision")

    async def discard(self, digest: str, revision: str) -> None:
        """One of them."""
        self._files = {
            key: files for key, files in self._files.items() if (key[0].digest, key[1]) != (digest, revision)
        }

    async def check(self) -> None:
        """Memory can always be written to."""
