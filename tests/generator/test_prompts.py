"""Prompts through the engine: users with different prompts and scales in one batch, and what is kept of their items."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from papa_serving.contracts.errors import InvalidRequest
from papa_serving.contracts.generation import FinishedItems, GeneratedItem, GenerationSpec, ImageEncoding
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.samples import unpack_prompted
from papa_serving.generator.items import Items
from PIL import Image
from torch import Tensor

from papa.denoiser import Denoiser, load_denoiser
from papa.sampler import sample
from tests.generator.support import ADAPT_FROM, GUIDANCE, World
from tests.papa.pipelines import diffusion_transformer, saved, stable_diffusion

ADA, BO = UserKey("tenant", "ada"), UserKey("tenant", "bo")
BOOT = GenerationSpec("q1", "g1", ADA, 2, seed=7, prompt="a red boot", sampler="ddim", steps=6)
SHIRT = replace(BOOT, generation_id="g2", user=BO, prompt="shirt", guidance=1.0, steps=9)
PLAIN = replace(BOOT, generation_id="g3", prompt="", steps=5)
AGAINST = replace(BOOT, generation_id="g4", negative_prompt="clothing", guidance=2.5)


@pytest.fixture(scope="module")
def denoiser(tmp_path_factory: pytest.TempPathFactory) -> Denoiser:
    return load_denoiser(saved(stable_diffusion(), tmp_path_factory.mktemp("prompts")))


@pytest.fixture
def world(denoiser: Denoiser) -> Iterator[World]:
    world = World(denoiser, max_rows=5)
    world.engine.start()
    yield world
    world.engine.stop()


async def generate(world: World, spec: GenerationSpec) -> list[GeneratedItem]:
    items = [
        item async for event in world.generator.run(spec) if isinstance(event, FinishedItems) for item in event.items
    ]
    return sorted(items, key=lambda item: item.index)


def alone(denoiser: Denoiser, spec: GenerationSpec, adapter: Tensor | None) -> Tensor:
    """The result of the library for this request alone."""
    guidance = GUIDANCE if spec.guidance < 0 else spec.guidance
    conditions = denoiser.conditions([spec.prompt] * spec.count, guidance, spec.negative_prompt)
    adapters = None if adapter is None else adapter.expand(spec.count, -1)
    return sample(denoiser, [spec.seed, spec.seed + 1], adapters, "ddim", spec.steps, ADAPT_FROM, conditions=conditions)


async def test_every_row_gets_its_own_prompt_scale_and_adapter(world: World, denoiser: Denoiser) -> None:
    weights = await world.commit(BO, "r1")
    together = await asyncio.gather(*(generate(world, spec) for spec in (BOOT, SHIRT, PLAIN, AGAINST)))
    for spec, items in zip((BOOT, SHIRT, PLAIN, AGAINST), together, strict=True):
        x0 = alone(denoiser, spec, weights if spec.user == BO else None)
        _, images = Items(world.items, denoiser).encoded(x0, ImageEncoding())
        for item, latents, image in zip(items, x0, images, strict=True):
            kept, prompt = unpack_prompted((await world.items.get(spec.user, item.item_id)).sample)
            assert (kept.dtype, prompt) == (np.float16, spec.prompt)
            assert np.allclose(kept, latents.numpy(), atol=1e-2, rtol=2e-3)
            assert np.allclose(pixels(item.image), pixels(image), atol=1)
            again = await world.generator.render(spec.user, item.item_id, ImageEncoding())
            assert np.allclose(pixels(again.item.image), pixels(image), atol=1), "decoded again from what is kept"
            assert (again.prompt, again.item.revision) == (spec.prompt, item.revision)
    assert not np.allclose(pixels(together[0][0].image), pixels(together[2][0].image), atol=3)


def pixels(image: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.int16]]:
    return np.asarray(Image.open(io.BytesIO(image))).astype(np.int16)


async def test_a_prompt_is_encoded_once_for_all_who_ask_it(
    world: World, denoiser: Denoiser, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[str] = []
    conditioner = denoiser._conditioner
    assert conditioner is not None
    parts = conditioner.parts
    monkeypatch.setattr(conditioner, "parts", lambda prompt: encoded.append(prompt) or parts(prompt))
    spec = replace(BOOT, prompt="a sneaker", count=1)
    await asyncio.gather(*(generate(world, replace(spec, generation_id=f"g{i}")) for i in range(4)))
    assert encoded.count("a sneaker") == 1


async def test_a_class_that_the_backbone_does_not_know_is_the_requests_fault(tmp_path: Path) -> None:
    transformer = World(load_denoiser(saved(diffusion_transformer(), tmp_path)))
    transformer.engine.start()
    try:
        with pytest.raises(InvalidRequest, match="1000 classes") as refused:
            await generate(transformer, replace(BOOT, prompt="a unicorn"))
        assert refused.value.field == "prompt"
        assert len(await generate(transformer, replace(BOOT, prompt="sneaker"))) == 2
    finally:
        transformer.engine.stop()


def test_nothing_of_an_encoded_prompt_is_bound_to_inference(denoiser: Denoiser) -> None:
    with torch.inference_mode():
        conditions = denoiser.conditions(["red"])
    again = denoiser.conditions(["red"])
    assert conditions is not None and again is not None
    assert not again.asked["encoder_hidden_states"].is_inference()
