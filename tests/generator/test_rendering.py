"""Stored items that are rendered again: latents one at a time, whoever goes away; pixels beside them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from papa_serving.contracts.errors import QueueFull
from papa_serving.contracts.generation import ImageEncoding
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.items import StoredItem
from papa_serving.contracts.samples import pack_sample
from papa_serving.generator.items import MAX_DECODINGS, Items
from papa_serving.settings import Settings
from papa_serving.store.memory import MemoryItemStore, MemoryState
from torch import Tensor

from papa.denoiser import Denoiser, load_denoiser
from tests.papa.pipelines import saved, stable_diffusion

ADA = UserKey("tenant", "ada")


class Decoder:
    """Stands for the denoiser's decoding, which nothing ends before `gate` is set."""

    def __init__(self, denoiser: Denoiser) -> None:
        self._decode, self._lock = denoiser.decode, threading.Lock()
        self.gate, self.begun = threading.Event(), threading.Event()
        self.calls = self.running = self.most = 0

    def __call__(self, latents: Tensor) -> Tensor:
        with self._lock:
            self.calls, self.running = self.calls + 1, self.running + 1
            self.most = max(self.most, self.running)
        self.begun.set()
        self.gate.wait(60)
        try:
            return self._decode(latents)
        finally:
            with self._lock:
                self.running -= 1


@pytest.fixture(scope="module")
def denoiser(tmp_path_factory: pytest.TempPathFactory) -> Denoiser:
    return load_denoiser(saved(stable_diffusion(), tmp_path_factory.mktemp("rendering")))


@pytest.fixture
def decoder(denoiser: Denoiser, monkeypatch: pytest.MonkeyPatch) -> Iterator[Decoder]:
    decoder = Decoder(denoiser)
    monkeypatch.setattr(denoiser, "decode", decoder)
    yield decoder
    decoder.gate.set()


@pytest.fixture
async def items(denoiser: Denoiser) -> Items:
    store = MemoryItemStore(MemoryState(Settings()))
    latents = torch.zeros(denoiser.sample_shape).numpy().astype(np.float16)
    pixels = np.zeros((3, 8, 8), np.uint8)
    await store.put(
        ADA, [StoredItem(f"{name}-0", pack_sample(sample), "", name, 0) for name, sample in
              (("latents", latents), ("pixels", pixels))]
    )  # fmt: skip
    return Items(store, denoiser)


def render(items: Items, name: str) -> asyncio.Task[object]:
    return asyncio.create_task(items.render(ADA, f"{name}-0", ImageEncoding()))


async def test_latents_are_decoded_one_at_a_time_also_when_their_callers_go_away(
    items: Items, decoder: Decoder
) -> None:
    gone = [render(items, "latents") for _ in range(6)]
    assert await asyncio.to_thread(decoder.begun.wait, 60)
    for task in gone:
        task.cancel()
    assert all(isinstance(each, asyncio.CancelledError) for each in await asyncio.gather(*gone, return_exceptions=True))
    last = render(items, "latents")
    await asyncio.wait_for(render(items, "pixels"), 30)
    assert not last.done(), "it waits for the first, which goes on although nobody wants it"
    decoder.gate.set()
    await asyncio.wait_for(last, 60)
    assert (decoder.most, decoder.calls) == (1, 2), "those that nobody waited for are not decoded"


async def test_only_so_many_wait_to_be_decoded(items: Items, decoder: Decoder) -> None:
    waiting = [render(items, "latents") for _ in range(MAX_DECODINGS)]
    beyond = render(items, "latents")
    with pytest.raises(QueueFull) as refused:
        await asyncio.wait_for(beyond, 60)
    assert refused.value.retry_after
    decoder.gate.set()
    await asyncio.wait_for(asyncio.gather(*waiting), 60)
    await render(items, "latents")
    assert decoder.most == 1
