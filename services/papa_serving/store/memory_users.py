"""User state in memory: the stub that passes the same tests as the one on Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence

from papa_serving.contracts.errors import RevisionNotFound
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.revisions import DeletionReceipt, Revision, Standing, UserDirectory, UserState
from papa_serving.store.memory_state import MemoryState


class MemoryUserDirectory(UserDirectory):
    """For tests of one process."""

    def __init__(self, state: MemoryState) -> None:
        self._state = state

    async def get(self, user: UserKey) -> UserState:
        """A snapshot."""
        return self._state.state(user)

    async def watch(self, user: UserKey) -> AsyncIterator[UserState]:
        """Woken by the change itself."""
        told = asyncio.Event()
        self._state.watchers.setdefault(user, set()).add(told)
        try:
            last = self._state.state(user)
            yield last
            while True:
                await told.wait()
                told.clear()
                state = self._state.state(user)
                if state != last:
                    last = state
                    yield state
        finally:
            self._state.watchers[user].discard(told)

    async def current(self, user: UserKey) -> Revision | None:
        """The pointer."""
        return self._state.state(user).current

    async def revision(self, user: UserKey, revision: str) -> Revision:
        """From the lineage."""
        return self._lineage(user)[_known(self._lineage(user), revision)]

    async def lineage(self, user: UserKey, limit: int, before: str = "") -> list[Revision]:
        """Raises RevisionNotFound when `before` is none of the user's."""
        lineage = self._lineage(user)
        names = list(lineage)
        if before:
            names = names[: names.index(_known(lineage, before))]
        return [lineage[name] for name in reversed(names)][:limit]

    async def rollback(self, user: UserKey, revision: str) -> UserState:
        """The lineage keeps its later revisions."""
        return self._point(user, _known(self._state.user(user).lineage, revision))

    async def reset(self, user: UserKey) -> UserState:
        """The lineage stays."""
        return self._point(user, "")

    async def delete(self, user: UserKey) -> DeletionReceipt:
        """While the tombstone stands, repeating answers the first receipt."""
        return self._state.delete(user)

    async def standing(self, digest: str) -> Standing:
        """By looking at all."""
        return self._state.standing(digest)

    async def restore(self, digest: str, chain: Sequence[Revision], events: Collection[str]) -> bool:
        """Memory that is lost takes its process with it."""
        raise NotImplementedError

    async def close(self) -> None:
        """Nothing to close."""

    def _lineage(self, user: UserKey) -> dict[str, Revision]:
        return self._state.lineage(user)

    def _point(self, user: UserKey, revision: str) -> UserState:
        known = self._state.user(user)
        if known.current != revision:
            known.current = revision
            self._state.changed(user)
        return self._state.state(user)


def _known(lineage: dict[str, Revision], revision: str) -> str:
    if revision not in lineage:
        raise RevisionNotFound(f"this user has no revision {revision!r}", field="revision")
    return revision
