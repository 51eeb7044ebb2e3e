"""Finished rows become items: encoded, and stored before anybody hears of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from services import metrics
from services.contracts.generation import GeneratedItem, GenerationSpec
from services.contracts.items import ItemStore, StoredItem
from services.contracts.samples import pack_sample
from services.generator.images import CONTENT_TYPE, png, to_pixels
from services.generator.job import SEEDS, FinishedRows


async def keep(
    store: ItemStore, spec: GenerationSpec, rows: FinishedRows, revision_of: Callable[[int], str]
) -> tuple[GeneratedItem, ...]:
    """Encodes the rows off the loop and stores them in one call; `revision_of` tells what made the item of an index.

    Raises UserDeleted, StorageUnavailable.
    """
    start = time.perf_counter()
    pixels, images = await asyncio.to_thread(_encoded, rows)
    metrics.GENERATION_STAGE_SECONDS.labels("encoding").observe(time.perf_counter() - start)
    items = tuple(
        _item(spec, index, image, revision_of(index)) for index, image in zip(rows.indexes, images, strict=True)
    )
    await store.put(
        spec.user,
        [
            StoredItem(item.item_id, pack_sample(x0), item.revision, spec.generation_id, item.seed)
            for item, x0 in zip(items, pixels, strict=True)
        ],
    )
    for item in items:
        metrics.GENERATED_ITEMS.labels("adapter" if item.revision else "base").inc()
    return items


def _item(spec: GenerationSpec, index: int, image: bytes, revision: str) -> GeneratedItem:
    item_id, seed = f"{spec.generation_id}-{index}", (spec.seed + index) % SEEDS
    return GeneratedItem(item_id, image, CONTENT_TYPE, seed, index, revision)


def _encoded(rows: FinishedRows) -> tuple[NDArray[np.uint8], list[bytes]]:
    pixels = to_pixels(rows.samples)
    return pixels, [png(image) for image in pixels]
