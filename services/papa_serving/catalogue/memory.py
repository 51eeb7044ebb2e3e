"""Catalogues in memory, searched exactly, for tests and benchmarks in one process. The tests of those on Redis hold."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from papa_serving.catalogue.passing import passes
from papa_serving.contracts.catalogue import (
    CatalogueItem,
    CatalogueKey,
    CatalogueRecord,
    Catalogues,
    Filter,
    ListedItem,
    Near,
    Page,
    Put,
)
from papa_serving.contracts.errors import CatalogueFull, EncoderChanged
from papa_serving.settings import CatalogueSettings


class MemoryCatalogues(Catalogues):
    """A dictionary of items for each catalogue."""

    def __init__(self, settings: CatalogueSettings) -> None:
        self._settings = settings
        self._catalogues: dict[CatalogueKey, dict[str, CatalogueItem]] = {}
        self._directions: dict[CatalogueKey, NDArray[np.float32]] = {}
        """Of all items of a catalogue, in order, since its last change. Shape: [n, F], of length 1."""

    @override
    async def encoder(self, catalogue: CatalogueKey) -> str:
        return next((item.encoder for item in self._items(catalogue).values()), "")

    @override
    async def put(self, catalogue: CatalogueKey, item: CatalogueItem) -> Put:
        items, settings = self._items(catalogue), self._settings
        if (former := await self.encoder(catalogue)) not in ("", item.encoder):
            raise EncoderChanged(f"the catalogue was embedded by {former}, and this embedding is by {item.encoder}")
        if not items and len(await self.of_tenant(catalogue.tenant)) >= settings.max_catalogues:
            raise CatalogueFull(f"the tenant has {settings.max_catalogues} catalogues and may have no more")
        known = item.item_id in items
        if not known and len(items) >= settings.max_items:
            raise CatalogueFull(f"the catalogue holds {settings.max_items} items and may hold no more")
        self._directions.pop(catalogue, None)
        self._catalogues.setdefault(catalogue, {})[item.item_id] = replace(item, updated_at=time.time())
        return Put.REPLACED if known else Put.ADDED

    @override
    async def delete(self, catalogue: CatalogueKey, item_ids: Sequence[str]) -> int:
        items = self._items(catalogue)
        self._directions.pop(catalogue, None)
        return sum(items.pop(item_id, None) is not None for item_id in item_ids)

    @override
    async def get(
        self, catalogue: CatalogueKey, item_ids: Sequence[str], *, pictures: bool = True
    ) -> list[CatalogueItem | None]:
        found = map(self._items(catalogue).get, item_ids)
        return [item if item is None or pictures else replace(item, sample=b"") for item in found]

    @override
    async def embeddings(self, catalogue: CatalogueKey, item_ids: Sequence[str]) -> list[bytes]:
        return [item.embedding if item else b"" for item in await self.get(catalogue, item_ids)]

    @override
    async def fingerprints(self, catalogue: CatalogueKey, item_ids: Sequence[str]) -> list[str]:
        return [item.fingerprint if item else "" for item in await self.get(catalogue, item_ids)]

    @override
    async def page(self, catalogue: CatalogueKey, limit: int, after: str) -> Page:
        items = self._items(catalogue)
        # By their bytes, as Redis sorts them.
        names = sorted((name for name in items if name.encode() > after.encode()), key=str.encode)
        found = [items[name] for name in names[:limit]]
        listed = [ListedItem(i.item_id, i.metadata, bool(i.sample), i.fingerprint, i.updated_at) for i in found]
        return Page(listed, found[-1].item_id if len(names) > limit else "")

    @override
    async def of_tenant(self, tenant: str) -> list[CatalogueRecord]:
        return [
            CatalogueRecord(key.name, len(items), await self.encoder(key))
            for key, items in sorted(self._catalogues.items())
            if key.tenant == tenant and items
        ]

    @override
    async def search(
        self, catalogue: CatalogueKey, vector: NDArray[np.float32], count: int, filters: Sequence[Filter] = ()
    ) -> list[Near]:
        items = list(self._items(catalogue).values())
        if not items:
            return []
        if catalogue not in self._directions:
            vectors = np.stack([item.vector for item in items])
            self._directions[catalogue] = vectors / (np.linalg.norm(vectors, axis=1, keepdims=True) + 1e-12)
        cosines = self._directions[catalogue] @ (vector / (np.linalg.norm(vector) + 1e-12))
        passing = [index for index in np.argsort(-cosines, kind="stable") if passes(items[index].metadata, filters)]
        return [Near(items[index].item_id, float(1 + cosines[index]) / 2) for index in passing[:count]]

    @override
    async def close(self) -> None:
        """Nothing is open."""

    def _items(self, catalogue: CatalogueKey) -> dict[str, CatalogueItem]:
        return self._catalogues.get(catalogue, {})
