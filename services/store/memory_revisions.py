"""Revisions in memory: the stub that passes the same tests as the file store."""

from __future__ import annotations

from collections.abc import Mapping

from services.contracts.errors import RevisionNotFound
from services.contracts.identity import UserKey
from services.contracts.revisions import RevisionStore
from services.store.revision_names import plain


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

    async def check(self) -> None:
        """Memory can always be written to."""
