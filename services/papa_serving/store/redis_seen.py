"""What was recommended to each user lately, on Redis: a zset beside the user's state, which a deletion takes along."""

from __future__ import annotations

import time
from collections.abc import Sequence

from typing_extensions import override

from papa_serving.contracts.catalogue import CatalogueKey
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.recommending import SeenItems
from papa_serving.settings import StoreSettings
from papa_serving.store.records import user_deleted
from papa_serving.store.redis_client import Client, call
from papa_serving.store.redis_keys import Keys
from papa_serving.store.redis_replies import checked_replies
from papa_serving.store.redis_scripts import load

_ADD = load(__package__, "add_seen", int | list)


@checked_replies()
class RedisSeenItems(SeenItems):
    """Bounds each user's window by a number of items and by a time to live."""

    def __init__(self, client: Client, keys: Keys, settings: StoreSettings) -> None:
        self._client, self._keys = client, keys
        self._ttl, self._kept = max(1, round(settings.seen_ttl * 1000)), settings.user_seen

    @override
    async def of_user(self, user: UserKey, catalogue: CatalogueKey) -> frozenset[str]:
        """The time to live is counted by this machine's clock."""
        oldest = round(time.time() * 1000) - self._ttl
        found = await call(self._client, "ZRANGEBYSCORE", self._keys.user(user).seen, f"({oldest}", "+inf")
        start = f"{catalogue.name}\0".encode()
        return frozenset(member.removeprefix(start).decode() for member in found if member.startswith(start))

    @override
    async def add(self, user: UserKey, catalogue: CatalogueKey, item_ids: Sequence[str]) -> frozenset[str]:
        keys = self._keys.user(user)
        members = [f"{catalogue.name}\0{item_id}" for item_id in item_ids]
        reply = await _ADD.run(self._client, [keys.state, keys.seen], [self._ttl, self._kept, *members])
        if isinstance(reply, int):
            raise user_deleted()
        return frozenset(item_id for item_id, new in zip(item_ids, reply, strict=True) if new)

    @override
    async def close(self) -> None:
        await self._client.aclose()
