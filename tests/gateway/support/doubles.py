"""The in-memory stubs of the stores, with switches for the troubles that a test wants to see."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from papa_serving.contracts.errors import PapaError
from papa_serving.contracts.feedback import AppendResult, FeedbackEvent
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.items import BackboneInfo, StoredItem
from papa_serving.contracts.revisions import Revision, UserState
from papa_serving.feedback.memory import MemoryFeedbackLog
from papa_serving.store.memory import MemoryItemStore, MemoryRevisionStore, MemoryState, MemoryUserDirectory

GREY = BackboneInfo(backbone_hash="b" * 64, name="grey", image_shape=(1, 28, 28))


def revision(number: int, parent: str = "") -> Revision:
    return Revision(f"{number:06}-aa", parent, 1_700_000_000.5 + number, "ab" * 32, 10, 10 * number)


class Log(MemoryFeedbackLog):
    """Every item exists unless `missing` names it. `failure` is raised, `refusals` go into results by event id, and
    with a `gate` nothing is appended before it opens."""

    def __init__(self, state: MemoryState) -> None:
        super().__init__(state)
        self.accepted: list[FeedbackEvent] = []
        self.groups: list[int] = []
        self.missing: set[str] = set()
        self.refusals: dict[str, PapaError] = {}
        self.failure: Exception | None = None
        self.gate: asyncio.Event | None = None
        self.waiting = asyncio.Event()

    async def append(self, events: Sequence[FeedbackEvent]) -> list[AppendResult]:
        self.groups.append(len(events))
        if self.gate is not None:
            self.waiting.set()
            await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        return [self._refused_or_appended(event) for event in events]

    def _refused_or_appended(self, event: FeedbackEvent) -> AppendResult:
        if event.event_id in self.refusals:
            return AppendResult(event.event_id, error=self.refusals[event.event_id])
        if event.item_id and event.item_id not in self.missing:
            made = StoredItem(event.item_id, b"sample", "", "generation", 0)
            self._state.user(event.user).items[event.item_id] = (self._state.clock() + 60, made)
        result = self._append(event)
        if result.error is None and not result.duplicate:
            self.accepted.append(event)
        return result


class Users(MemoryUserDirectory):
    """`failure` is raised by every look; `change` and `commit` are what feedback and trainers do."""

    failure: Exception | None = None

    async def get(self, user: UserKey) -> UserState:
        if self.failure is not None:
            raise self.failure
        return await super().get(user)

    def change(self, user: UserKey, **fields: object) -> None:
        for name, value in fields.items():
            setattr(self._state.user(user), name, value)
        self._state.changed(user)

    def commit(self, user: UserKey, made: Revision) -> None:
        self._state.user(user).lineage[made.name] = made
        self.change(user, current=made.name)

    def watchers(self, user: UserKey) -> int:
        return len(self._state.watchers.get(user, ()))


class Items(MemoryItemStore):
    """Knows a grey backbone; `failure` is raised when asked."""

    def __init__(self, state: MemoryState) -> None:
        super().__init__(state)
        self.info: BackboneInfo | None = GREY
        self.failure: Exception | None = None

    async def backbone_info(self) -> BackboneInfo | None:
        if self.failure is not None:
            raise self.failure
        return self.info


class Revisions(MemoryRevisionStore):
    """`failure` is raised by a deletion."""

    failure: Exception | None = None

    async def delete_user(self, user: UserKey) -> int:
        if self.failure is not None:
            raise self.failure
        return await super().delete_user(user)
