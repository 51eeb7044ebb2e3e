"""Items and the announced backbone on Redis."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from typing_extensions import override

from papa_serving import metrics
from papa_serving.contracts.attribution import Notes
from papa_serving.contracts.errors import ItemNotFound
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.items import BackboneInfo, ItemStore, StoredItem
from papa_serving.settings import StoreSettings
from papa_serving.store.records import check_backbone, decode_backbone, encode_backbone, user_deleted
from papa_serving.store.redis_client import Argument, Client, call
from papa_serving.store.redis_keys import Keys
from papa_serving.store.redis_replies import checked_replies
from papa_serving.store.redis_scripts import load

_PUT = load(__package__, "put_items", int)
_RENAME = load(__package__, "rename_backbone", int)


@checked_replies("publish_backbone")  # its ValueErrors tell of a store that belongs to another backbone
class RedisItemStore(ItemStore):
    """Stores each item as a hash with a time to live, and one index per user by which a deletion finds the items."""

    def __init__(self, client: Client, keys: Keys, settings: StoreSettings) -> None:
        self._client = client
        self._keys = keys
        self._ttl = max(1, round(settings.item_ttl * 1000))
        self._kept = settings.user_items

    @override
    async def put(self, user: UserKey, items: Sequence[StoredItem]) -> None:
        keys = self._keys.user(user)
        values = [(i.item_id, i.sample, i.revision, i.generation_id, i.seed, i.notes.encode()) for i in items]
        script_keys = [keys.state, keys.items, *(keys.item(item.item_id) for item in items)]
        quota: list[Argument] = [self._ttl, self._kept, keys.item("")]
        removed = await _PUT.run(self._client, script_keys, [*quota, *(v for item in values for v in item)])
        if removed < 0:
            raise user_deleted()
        metrics.QUOTA_EFFECTS.labels("items", "removed").inc(removed)

    @override
    async def get(self, user: UserKey, item_id: str) -> StoredItem:
        """Makes one look-up. The key contains the user's digest, so no user can reach another's item."""
        key = self._keys.user(user).item(item_id)
        sample, revision, generation, seed, notes = await call(
            self._client, "HMGET", key, "sample", "revision", "generation", "seed", "notes"
        )
        if sample is None:
            raise ItemNotFound("no such item: never made for this user, or past its time to live")
        return StoredItem(
            item_id, sample, revision.decode(), generation.decode(), int(seed), Notes.decode(notes or b"")
        )

    @override
    async def of_user(self, user: UserKey) -> list[StoredItem]:
        """Makes one look-up per item and leaves out those that expire meanwhile."""
        keys = self._keys.user(user)
        names = [name.decode() for name in await call(self._client, "ZRANGE", keys.items, 0, -1)]
        found = []
        for name in names:
            with suppress(ItemNotFound):
                found.append(await self.get(user, name))
        return found

    @override
    async def publish_backbone(self, info: BackboneInfo) -> None:
        """The first announcement stays. The same backbone may change its name and flags.

        Also raises ValueError when the store was created with another number of partitions.
        """
        count = len(self._keys.partitions)
        await call(self._client, "SETNX", self._keys.partition_count, count)
        laid_out = int(await call(self._client, "GET", self._keys.partition_count))
        if laid_out != count:
            raise ValueError(f"this store has {laid_out} partitions for ever: set feedback.partitions to {laid_out}")
        text = encode_backbone(info)
        await call(self._client, "SETNX", self._keys.backbone, text)
        known = await self.backbone_info()
        check_backbone(known or info, info.name, info.backbone_hash)
        if known != info:
            await call(self._client, "SET", self._keys.backbone, text)

    @override
    async def rename_backbone(self, former: str, info: BackboneInfo) -> bool:
        keys, replaced = [self._keys.backbone], [former, encode_backbone(info)]
        return bool(await _RENAME.run(self._client, keys, replaced))

    @override
    async def backbone_info(self) -> BackboneInfo | None:
        text = await call(self._client, "GET", self._keys.backbone)
        return None if text is None else decode_backbone(text)

    @override
    async def close(self) -> None:
        await self._client.aclose()
