"""Catalogues on Redis: for each one vector set (HNSW, 8 bits a number) and the records of its items."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from papa_serving.catalogue.redis_filters import attributes, expression
from papa_serving.contracts.catalogue import (
    CatalogueItem,
    CatalogueKey,
    CatalogueRecord,
    Catalogues,
    Filter,
    ListedItem,
    Metadata,
    Near,
    Page,
    Put,
)
from papa_serving.contracts.errors import CatalogueFull, CatalogueUnsupported, EncoderChanged, StorageDamaged
from papa_serving.settings import CatalogueSettings
from papa_serving.store.redis_client import Argument, Client, call, call_all, unavailable
from papa_serving.store.redis_keys import CatalogueKeys, tenant_catalogues
from papa_serving.store.redis_replies import checked_replies
from papa_serving.store.redis_scripts import load

_PUT = load(__package__, "put_item", int)
_DELETE = load(__package__, "delete_items", int)
_CLAIM = load(__package__, "claim_name", int)
_FREE = load(__package__, "free_name", int)
_FIRST, _FULL, _OTHER_ENCODER = 2, -1, -2
"""Replies of put_item.lua."""

EFFORT = 200
"""Candidates that a search of the graph keeps at least (HNSW's ef): recall and time grow with it."""
EXACT = 50_000
"""Up to so many items, a search with a filter looks at all of them: that takes less time than to walk a graph most of
whose nodes are refused."""
FILTER_EFFORT = 5_000
"""Nodes of a larger graph that a filter may refuse before the search gives up and looks at all items."""
THOROUGH = 4
"""Searches of all items at once."""
DELETED_AT_ONCE = 50
"""Items that one script removes: it blocks the server, for about 10 ms."""
_FIELDS = ("embedding", "encoder", "metadata", "fingerprint", "updated")
_UNKNOWN_COMMAND = re.compile(r"unknown .*command", re.IGNORECASE)


@checked_replies()
class RedisCatalogues(Catalogues):
    """All keys of a catalogue share a hash tag; on a Redis Cluster, catalogues are spread over the nodes."""

    def __init__(self, client: Client, prefix: str, settings: CatalogueSettings) -> None:
        self._client, self._prefix, self._settings = client, prefix, settings
        self._thorough = asyncio.Semaphore(THOROUGH)

    @override
    async def encoder(self, catalogue: CatalogueKey) -> str:
        return (await call(self._client, "GET", self._keys(catalogue).encoder) or b"").decode()

    @override
    async def put(self, catalogue: CatalogueKey, item: CatalogueItem) -> Put:
        await self._claim(catalogue)
        keys = self._keys(catalogue)
        fields: list[Argument] = [
            "embedding", item.embedding, "encoder", item.encoder, "metadata", _encoded(item.metadata),
            "sample", item.sample, "fingerprint", item.fingerprint,
        ]  # fmt: skip
        most = self._settings.max_items
        arguments = [item.item_id, item.vector.tobytes(), attributes(item.metadata), most, item.encoder, *fields]
        with _vector_sets():
            put = await _PUT.run(
                self._client, [keys.vectors, keys.ids, keys.encoder, keys.item(item.item_id)], arguments
            )
        if put == _OTHER_ENCODER:
            raise EncoderChanged(
                f"the catalogue was embedded by {await self.encoder(catalogue)}, and this embedding is by "
                f"{item.encoder}: delete its items, or import into another catalogue"
            )
        if put == _FULL:
            raise CatalogueFull(f"the catalogue holds {most} items and may hold no more (catalogue.max_items)")
        if put == _FIRST:
            await self._claim_again(catalogue, item.item_id)
        return Put.ADDED if put else Put.REPLACED

    @override
    async def delete(self, catalogue: CatalogueKey, item_ids: Sequence[str]) -> int:
        keys, unique = self._keys(catalogue), list(dict.fromkeys(item_ids))
        deleted = 0
        for start in range(0, len(unique), DELETED_AT_ONCE):
            part = unique[start : start + DELETED_AT_ONCE]
            records = (keys.item(item_id) for item_id in part)
            with _vector_sets():
                deleted += await _DELETE.run(self._client, [keys.vectors, keys.ids, keys.encoder, *records], part)
        return deleted

    @override
    async def get(
        self, catalogue: CatalogueKey, item_ids: Sequence[str], *, pictures: bool = True
    ) -> list[CatalogueItem | None]:
        keys = self._keys(catalogue)
        fields = [*_FIELDS, *(["sample"] if pictures else [])]
        replies = await self._all([("HMGET", keys.item(each), *fields) for each in item_ids])
        return [_item(item_id, *reply) for item_id, reply in zip(item_ids, replies, strict=True)]

    @override
    async def embeddings(self, catalogue: CatalogueKey, item_ids: Sequence[str]) -> list[bytes]:
        keys = self._keys(catalogue)
        replies = await self._all([("HGET", keys.item(each), "embedding") for each in item_ids])
        return [reply or b"" for reply in replies]

    @override
    async def fingerprints(self, catalogue: CatalogueKey, item_ids: Sequence[str]) -> list[str]:
        keys = self._keys(catalogue)
        replies = await self._all([("HGET", keys.item(each), "fingerprint") for each in item_ids])
        return [(reply or b"").decode() for reply in replies]

    @override
    async def page(self, catalogue: CatalogueKey, limit: int, after: str) -> Page:
        keys, start = self._keys(catalogue), f"({after}" if after else "-"
        asked = ("ZRANGEBYLEX", keys.ids, start, "+", "LIMIT", 0, limit + 1)
        found = [name.decode() for name in await call(self._client, *asked)]
        names = found[:limit]
        commands: list[tuple[Argument, ...]] = []
        for name in names:
            key = keys.item(name)
            commands += [("HMGET", key, "metadata", "fingerprint", "updated"), ("HSTRLEN", key, "sample")]
        replies = iter(await self._all(commands))
        items = [
            ListedItem(name, _decoded(metadata), bool(length), fingerprint.decode(), int(updated) / 1000)
            for name, (metadata, fingerprint, updated), length in zip(names, replies, replies, strict=False)
            if updated is not None
        ]
        return Page(items, names[-1] if len(found) > limit else "")

    @override
    async def of_tenant(self, tenant: str) -> list[CatalogueRecord]:
        names = await self._named(tenant)
        commands: list[tuple[Argument, ...]] = []
        for keys in (self._keys(CatalogueKey(tenant, name)) for name in names):
            commands += [("ZCARD", keys.ids), ("GET", keys.encoder)]
        replies = iter(await self._all(commands))
        return [
            CatalogueRecord(name, int(count), (encoder or b"").decode())
            for name, count, encoder in zip(names, replies, replies, strict=False)
            if count
        ]

    @override
    async def search(
        self, catalogue: CatalogueKey, vector: NDArray[np.float32], count: int, filters: Sequence[Filter] = ()
    ) -> list[Near]:
        asked: list[Argument] = ["VSIM", self._keys(catalogue).vectors, "FP32", vector.astype("<f4").tobytes()]
        asked += ["WITHSCORES", "COUNT", count, "EF", max(EFFORT, count)]
        passing = expression(filters)
        with _vector_sets():
            if not passing:
                found = await self._unfiltered(catalogue, asked, count)
            else:
                found = await self._filtered(catalogue, [*asked, "FILTER", passing], count)
        return [Near(name.decode(), float(score)) for name, score in zip(found[::2], found[1::2], strict=True)]

    @override
    async def close(self) -> None:
        await self._client.aclose()

    async def _unfiltered(self, catalogue: CatalogueKey, asked: Sequence[Argument], count: int) -> Any:
        """The reply of a search of the graph, and where it found too few, of all vectors: a walk may miss some."""
        found = await call(self._client, *asked)
        if len(found) == 2 * count or len(found) >= 2 * await self._count(catalogue):
            return found
        async with self._thorough:
            return await call(self._client, *asked, "TRUTH")

    async def _filtered(self, catalogue: CatalogueKey, asked: Sequence[Argument], count: int) -> Any:
        """The reply of a search with a filter: of the graph where that is quicker and finds enough, else of all
        vectors."""
        if await self._count(catalogue) > EXACT:
            found = await call(self._client, *asked, "FILTER-EF", FILTER_EFFORT)
            if len(found) == 2 * count:
                return found
        async with self._thorough:
            return await call(self._client, *asked, "TRUTH")

    async def _claim(self, catalogue: CatalogueKey) -> None:
        """Gives the catalogue one of its tenant's places, where it has none. Raises CatalogueFull."""
        key, mark = tenant_catalogues(self._prefix, catalogue.tenant), secrets.token_hex(8)
        most = self._settings.max_catalogues
        while not await _CLAIM.run(self._client, [key], [catalogue.name, mark, most]):
            if not await self._free_a_place(catalogue.tenant):
                raise CatalogueFull(f"the tenant has {most} catalogues and may have no more (catalogue.max_catalogues)")

    async def _claim_again(self, catalogue: CatalogueKey, first: str) -> None:
        """Renews the claim once the first item is there: until then, another call may have freed the place. Raises
        CatalogueFull, without the item, where no place is left."""
        try:
            await self._claim(catalogue)
        except CatalogueFull:
            await self.delete(catalogue, [first])
            raise

    async def _free_a_place(self, tenant: str) -> bool:
        """Forgets the name of an empty catalogue. Returns whether one seemed empty."""
        for name, mark in (await self._named(tenant)).items():
            if not await self._count(CatalogueKey(tenant, name)):
                await _FREE.run(self._client, [tenant_catalogues(self._prefix, tenant)], [name, mark])
                return True
        return False

    async def _named(self, tenant: str) -> dict[str, bytes]:
        """The mark of each catalogue's last claim, by its name, sorted."""
        flat = await call(self._client, "HGETALL", tenant_catalogues(self._prefix, tenant))
        pairs = zip(flat[::2], flat[1::2], strict=True) if isinstance(flat, list) else flat.items()
        return dict(sorted((name.decode(), mark) for name, mark in pairs))

    async def _count(self, catalogue: CatalogueKey) -> int:
        return int(await call(self._client, "ZCARD", self._keys(catalogue).ids))

    async def _all(self, commands: Sequence[tuple[Argument, ...]]) -> list[Any]:
        """The replies of many commands. Raises the error of the first one that was refused."""
        replies = await call_all(self._client, commands) if commands else []
        for reply in replies:
            if isinstance(reply, Exception):
                raise unavailable(reply) from reply  # type: ignore[arg-type]
        return replies

    def _keys(self, catalogue: CatalogueKey) -> CatalogueKeys:
        return CatalogueKeys(self._prefix, catalogue.digest)


@contextmanager
def _vector_sets() -> Iterator[None]:
    """Raises CatalogueUnsupported where the server has no vector sets."""
    try:
        yield
    except StorageDamaged as error:
        if not _UNKNOWN_COMMAND.search(error.message):
            raise
        raise CatalogueUnsupported(
            "catalogues need Redis 8 or newer: name one with catalogue.url; redis.url may stay as it is"
        ) from error


def _encoded(metadata: Metadata) -> str:
    return json.dumps({key: list(value) if isinstance(value, tuple) else value for key, value in metadata.items()})


def _decoded(text: bytes) -> Metadata:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in json.loads(text).items()}


def _item(
    item_id: str,
    embedding: bytes | None,
    encoder: bytes,
    metadata: bytes,
    fingerprint: bytes,
    updated: bytes,
    sample: bytes = b"",
) -> CatalogueItem | None:
    if embedding is None:
        return None
    return CatalogueItem(
        item_id, embedding, encoder.decode(), _decoded(metadata), sample, fingerprint.decode(), int(updated) / 1000
    )
