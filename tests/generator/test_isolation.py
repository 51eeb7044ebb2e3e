"""The results of a user do not depend on others, bit for bit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import torch
from papa_serving.contracts.identity import UserKey

from tests.generator.support import (
    ANN,
    PATIENCE,
    GatedDenoiser,
    Run,
    World,
    everything,
    random_weights,
    running,
    spec,
    submit,
    tiny_denoiser,
)

MALLORY = UserKey("tenant", "mallory")


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World(tiny_denoiser())
    world.engine.start()
    yield world
    await asyncio.to_thread(world.engine.stop, PATIENCE)


def beside(mallory: int, count: int) -> list[torch.Tensor]:
    """Ann's samples, from steps that she shares with `count` rows of Mallory, whose adapter is made of that seed.

    They wait until somebody else's step stands before the gate: whether a step has eight rows or nine shows in the last
    bits on some processors, and it must not be a race that decides.
    """
    denoiser = GatedDenoiser()
    weights = random_weights(denoiser, 1)
    with running(denoiser) as engine:
        first = submit(engine, Run("somebody", steps=1))
        denoiser.arrive()
        ann = submit(engine, Run("ann", count=2, seed=7, weights=weights))
        other = submit(engine, Run("mallory", count=count, seed=9, weights=random_weights(denoiser, mallory)))
        denoiser.open()
        for run in (first, ann, other):
            run.wait()
    assert any(len(step) == 2 + count for step in denoiser.steps), "they shared a step"
    return [ann.samples[index] for index in range(2)]


def test_another_ones_adapter_changes_no_bit() -> None:
    """Flipped labels make another adapter; whatever it is, even a huge one, it stays in its own rows."""
    expected = beside(mallory=2, count=6)
    for seed in (3, 4):
        for sample, same in zip(beside(mallory=seed, count=6), expected, strict=True):
            assert torch.equal(sample, same)


async def test_a_flood_changes_no_image(world: World) -> None:
    await world.commit(ANN, "r1")
    await world.commit(MALLORY, "r1", weights=random_weights(world.denoiser, 5))
    alone, _ = await everything(world, spec(count=3))
    flood = [
        asyncio.create_task(everything(world, spec(MALLORY, 4, seed=100 * number, generation_id=f"m{number}")))
        for number in range(12)
    ]
    beside, done = await everything(world, spec(count=3, generation_id="again"))
    assert done.revision == "r1"
    images = [{item.index: item.image for item in items} for items in (alone, beside)]
    assert images[0] == images[1]
    for _, end in await asyncio.gather(*flood):
        assert end.revision == "r1", "the flood was served as well"
