"""Finished rows become items: encoded, and stored before anybody hears of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from papa_serving import metrics, tracing
from papa_serving.contracts.generation import GeneratedItem, GenerationSpec
from papa_serving.contracts.items import ItemStore, StoredItem
from papa_serving.contracts.samples import pack_sample
from papa_serving.generator.images import CONTENT_TYPE
from papa_serving.generator.job import SEEDS, FinishedRows
from papa_serving.generator.pictures import Pictures


async def keep(
    store: ItemStore, pictures: Pictures, spec: GenerationSpec, rows: FinishedRows, revision_of: Callable[[int], str]
) -> tuple[GeneratedItem, ...]:
    """Encodes the rows off the loop and stores them in one call; `revision_of` tells what made the item of an index.

    Raises UserDeleted, StorageUnavailable.
    """
    start = time.perf_counter()
    samples, images = await asyncio.to_thread(pictures.encoded, rows.samples)
    metrics.GENERATION_STAGE_SECONDS.labels("encoding").observe(time.perf_counter() - start)
    items = tuple(
        _item(spec, index, image, revision_of(index)) for index, image in zip(rows.indexes, images, strict=True)
    )
    with tracing.span("store items"):
        await store.put(
            spec.user,
            [
                StoredItem(item.item_id, pack_sample(x0, spec.prompt), item.revision, spec.generation_id, item.seed)
                for item, x0 in zip(items, samples, strict=True)
            ],
        )
    for item in items:
        metrics.GENERATED_ITEMS.labels("adapter" if item.revision else "base").inc()
    return items


def _item(spec: GenerationSpec, index: int, image: bytes, revision: str) -> GeneratedItem:
    item_id, seed = f"{spec.generation_id}-{index}", (spec.seed + index) % SEEDS
    return GeneratedItem(item_id, image, CONTENT_TYPE, seed, index, revision)
