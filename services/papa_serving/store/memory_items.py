"""Items in memory: the stub that passes the same tests as the store on Redis."""

from __future__ import annotations

from collections.abc import Sequence

from papa_serving.contracts.errors import ItemNotFound
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.items import BackboneInfo, ItemStore, StoredItem
from papa_serving.store.memory_state import MemoryState
from papa_serving.store.records import check_backbone


class MemoryItemStore(ItemStore):
    """For tests of one process."""

    def __init__(self, state: MemoryState) -> None:
        self._state = state

    async def put(self, user: UserKey, items: Sequence[StoredItem]) -> None:
        """Each with its own time to live."""
        until = self._state.clock() + self._state.settings.store.item_ttl
        self._state.user(user).items.update({item.item_id: (until, item) for item in items})

    async def get(self, user: UserKey, item_id: str) -> StoredItem:
        """A deleted user has none."""
        item = self._state.item(user, item_id)
        if item is None:
            raise ItemNotFound("no such item: never made for this user, or past its time to live")
        return item

    async def publish_backbone(self, info: BackboneInfo) -> None:
        """The first one stays."""
        check_backbone(self._state.backbone or info, info)
        self._state.backbone = info

    async def backbone(self) -> BackboneInfo | None:
        """What was announced."""
        return self._state.backbone

    async def close(self) -> None:
        """Nothing to close."""
