"""Makes items of finished rows: decodes them, encodes images, and stores both before the caller is told."""

from __future__ import annotations

import asyncio
import io
import time
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from papa.denoiser import Denoiser
from papa.pixels import to_pixels
from papa.selection import Served
from papa_serving import metrics, tracing
from papa_serving.contracts.generation import GeneratedItem, GenerationSpec
from papa_serving.contracts.items import ItemStore, StoredItem
from papa_serving.contracts.samples import pack_sample
from papa_serving.generator.job import FinishedRows

CONTENT_TYPE = "image/png"
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


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
        samples, images = await asyncio.to_thread(self.encoded, rows.samples)
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
    def encoded(self, samples: Tensor) -> tuple[NDArray[np.generic], list[bytes]]:
        """The x0 to store (uint8 pixels, or float16 latents) and the PNG files. Shape: samples [n, *sample_shape]."""
        pixels: NDArray[np.uint8] = to_pixels(self._denoiser.decode(samples)).numpy()
        kept = pixels if self._denoiser.sample_dtype == torch.uint8 else samples.half().numpy()
        return kept, [png(image) for image in pixels]


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Encodes one image. Shape: [C, H, W], C one of 1, 3, 4."""
    mode = _MODES[len(pixels)]
    image = Image.fromarray(pixels[0] if mode == "L" else np.ascontiguousarray(pixels.transpose(1, 2, 0)), mode)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _item(spec: GenerationSpec, served: Served, image: bytes, origin: Origin) -> GeneratedItem:
    return GeneratedItem(
        item_id=f"{spec.generation_id}-{served.item}",
        image=image,
        content_type=CONTENT_TYPE,
        seed=served.candidate.seed,
        index=served.item,
        revision=origin.revision_of(served),
        like_probability=served.chance,
        exploring=origin.exploring(served),
    )
