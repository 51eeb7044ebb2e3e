"""Makes items of finished rows: decodes them, encodes images, and stores both before the caller is told."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from papa.denoiser import Denoiser
from papa.pixels import to_pixels
from papa.selection import Served
from papa_serving import metrics, tracing
from papa_serving.contracts.generation import GeneratedItem, GenerationSpec, ImageEncoding
from papa_serving.contracts.items import ItemStore, StoredItem
from papa_serving.contracts.samples import pack_sample
from papa_serving.generator.encoding import content_type, encode
from papa_serving.generator.job import FinishedRows


class Origin(Protocol):
    """Tells which revision made each item of a generation."""

    def revision_of(self, served: Served, /) -> str:
        """The revision; "" for the base."""

    def exploring(self, served: Served, /) -> bool:
        """Whether the base made it although there is an adapter."""


class Items:
    """Makes items of finished rows. Decoding runs in a worker thread, beside the engine's."""

    def __init__(self, store: ItemStore, denoiser: Denoiser) -> None:
        self._store = store
        self._denoiser = denoiser

    async def keep(self, spec: GenerationSpec, rows: FinishedRows, origin: Origin) -> tuple[GeneratedItem, ...]:
        """Stores the rows as items in one call; `origin` knows what made each.

        Raises UserDeleted, StorageUnavailable.
        """
        start = time.perf_counter()
        samples, images = await asyncio.to_thread(self.encoded, rows.samples, spec.image)
        metrics.GENERATION_STAGE_SECONDS.labels("encoding").observe(time.perf_counter() - start)
        items = tuple(_item(spec, served, image, origin) for served, image in zip(rows.served, images, strict=True))
        with tracing.span("store items"):
            await self._store.put(
                spec.user,
                [
                    StoredItem(item.item_id, pack_sample(x0, spec.prompt), item.revision, spec.generation_id, item.seed)
                    for item, x0 in zip(items, samples, strict=True)
                ],
            )
        for item in items:
            metrics.GENERATED_ITEMS.labels("adapter" if item.revision else "base").inc()
            metrics.EXPLORING_ITEMS.inc(item.exploring)
        return items

    @torch.inference_mode()
    def encoded(self, samples: Tensor, encoding: ImageEncoding) -> tuple[NDArray[np.generic], list[bytes]]:
        """The x0 to store (uint8 pixels, or float16 latents) and the image files.

        Shape: samples [n, *sample_shape].
        """
        pixels: NDArray[np.uint8] = to_pixels(self._denoiser.decode(samples)).numpy()
        kept = pixels if self._denoiser.sample_dtype == torch.uint8 else samples.half().numpy()
        return kept, [encode(image, encoding) for image in pixels]


def _item(spec: GenerationSpec, served: Served, image: bytes, origin: Origin) -> GeneratedItem:
    return GeneratedItem(
        item_id=f"{spec.generation_id}-{served.item}",
        image=image,
        content_type=content_type(spec.image),
        seed=served.candidate.seed,
        index=served.item,
        revision=origin.revision_of(served),
        like_probability=served.chance,
        exploring=origin.exploring(served),
    )
