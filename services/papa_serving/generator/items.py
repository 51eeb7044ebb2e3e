"""Makes items of finished rows: decodes them, encodes images, and stores both before the caller is told."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from papa.denoiser import Denoiser
from papa.pixels import to_pixels
from papa.selection import Served
from papa_serving import metrics, tracing
from papa_serving.contracts.errors import QueueFull, StorageDamaged
from papa_serving.contracts.generation import GeneratedItem, GenerationSpec, ImageEncoding, RenderedItem
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.items import ItemStore, StoredItem
from papa_serving.contracts.samples import pack_sample, unpack_prompted
from papa_serving.generator.encoding import content_type, encode
from papa_serving.generator.job import FinishedRows

MAX_DECODINGS = 32
"""Stored latents that are decoded or wait for it; the callers of further ones are told to come again."""
RETRY_SECONDS = 1.0


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
        self._decoder = ThreadPoolExecutor(1, "decoding")
        self._places = threading.BoundedSemaphore(MAX_DECODINGS)

    async def render(self, user: UserKey, item_id: str, encoding: ImageEncoding) -> RenderedItem:
        """Encodes a stored item. Latents are decoded one item at a time, so that memory is bounded; pixels do not wait.

        Raises ItemNotFound, StorageUnavailable; QueueFull where MAX_DECODINGS items wait to be decoded; StorageDamaged
        for a sample that cannot be read.
        """
        stored = await self._store.get(user, item_id)
        try:
            sample, prompt = unpack_prompted(stored.sample)
        except ValueError as error:
            raise StorageDamaged(f"a stored item cannot be read: {error}") from error
        if sample.dtype == np.uint8:
            image = await asyncio.to_thread(encode, sample.view(np.uint8), encoding)
        else:
            image = await self._decoded(sample, encoding)
        item = GeneratedItem(item_id, image, content_type(encoding), stored.seed, _index_of(item_id), stored.revision)
        return RenderedItem(item, stored.generation_id, prompt, stored.notes)

    async def _decoded(self, sample: NDArray[np.generic], encoding: ImageEncoding) -> bytes:
        """A caller who goes away frees the place only when the thread gets there: a decoding cannot be interrupted."""
        if not self._places.acquire(blocking=False):
            raise QueueFull("too many items wait to be decoded", retry_after=RETRY_SECONDS)
        abandoned = threading.Event()
        decoding = self._decoder.submit(self._take_turn, abandoned, sample, encoding)
        try:
            return await asyncio.shield(asyncio.wrap_future(decoding))
        except asyncio.CancelledError:
            abandoned.set()
            raise

    def _take_turn(self, abandoned: threading.Event, sample: NDArray[np.generic], encoding: ImageEncoding) -> bytes:
        """Skips what nobody waits for any more."""
        try:
            return b"" if abandoned.is_set() else self._rendered(sample, encoding)
        finally:
            self._places.release()

    @torch.inference_mode()
    def _rendered(self, sample: NDArray[np.generic], encoding: ImageEncoding) -> bytes:
        latents = torch.from_numpy(sample.astype(np.float32))[None].to(self._denoiser.device)
        return encode(to_pixels(self._denoiser.decode(latents)).numpy()[0], encoding)

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
                [_stored(spec, item, x0) for item, x0 in zip(items, samples, strict=True)],
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


def _stored(spec: GenerationSpec, item: GeneratedItem, x0: NDArray[np.generic]) -> StoredItem:
    sample = pack_sample(x0, spec.prompt)
    return StoredItem(item.item_id, sample, item.revision, spec.generation_id, item.seed, spec.notes)


def _item_id(generation_id: str, index: int) -> str:
    return f"{generation_id}-{index}"


def _index_of(item_id: str) -> int:
    """The index that `_item_id` was made with."""
    return int(item_id.rpartition("-")[2])


def _item(spec: GenerationSpec, served: Served, image: bytes, origin: Origin) -> GeneratedItem:
    return GeneratedItem(
        item_id=_item_id(spec.generation_id, served.item),
        image=image,
        content_type=content_type(spec.image),
        seed=served.candidate.seed,
        index=served.item,
        revision=origin.revision_of(served),
        like_probability=served.chance,
        exploring=origin.exploring(served),
    )
