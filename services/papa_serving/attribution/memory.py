"""A memory stub of the log of activity. It passes the same tests as the one on Redis."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from typing_extensions import override

from papa_serving.contracts.attribution import ActivityLog, Kind, Record
from papa_serving.contracts.errors import UserDeleted
from papa_serving.contracts.identity import UserKey
from papa_serving.store.memory import MemoryState


class MemoryActivityLog(ActivityLog):
    """The activity of the users of a MemoryState."""

    def __init__(self, state: MemoryState) -> None:
        self._state = state

    @override
    async def add(self, user: UserKey, kind: Kind, data: bytes) -> None:
        settings = self._state.settings.attribution
        most = settings.impressions if kind == "impression" else settings.events
        with suppress(UserDeleted):
            self._state.keep(self._of(user, kind), data, most)

    @override
    async def kept(self, user: UserKey, kind: Kind) -> Sequence[Record]:
        try:
            return self._state.alive(self._of(user, kind))
        except UserDeleted:
            return []

    @override
    async def close(self) -> None:
        pass

    def _of(self, user: UserKey, kind: Kind) -> list[Record]:
        known = self._state.user(user)
        return known.impressions if kind == "impression" else known.attributed
