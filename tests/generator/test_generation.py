"""The room from request to stored items, over a real engine and stores in memory."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace

import numpy as np
import pytest
import torch
from papa_serving.contracts.errors import (
    DeadlineExceeded,
    InvalidRequest,
    ItemNotFound,
    PapaError,
    QueueFull,
    RevisionDamaged,
    RevisionNotFound,
    StorageDamaged,
    UserDeleted,
)
from papa_serving.contracts.generation import GeneratedItem, GenerationSpec, ImageEncoding
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.items import StoredItem
from papa_serving.contracts.samples import unpack_sample
from PIL import Image
from prometheus_client import REGISTRY

from papa.denoiser import Denoiser
from papa.sampler import sample
from tests.generator.support import (
    ADAPT_FROM,
    ANN,
    PATIENCE,
    GatedDenoiser,
    World,
    everything,
    random_weights,
    spec,
    tiny_denoiser,
)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World(tiny_denoiser())
    world.engine.start()
    yield world
    await asyncio.to_thread(world.engine.stop, PATIENCE)


@pytest.fixture
async def gated(gate: GatedDenoiser) -> AsyncIterator[World]:
    world = World(gate, max_rows=4, max_queued_rows=4)
    world.engine.start()
    yield world
    gate.open()
    await asyncio.to_thread(world.engine.stop, PATIENCE)


def pixels(item: GeneratedItem) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(item.image)))


async def test_items_are_what_the_library_samples(world: World, reference: Denoiser) -> None:
    weights = await world.commit(ANN, "r1")
    items, done = await everything(world, spec(count=3, seed=2**63 - 2, sampler="dpmpp_2m", steps=5))
    assert done.revision == "r1"
    assert [item.index for item in items] == [0, 1, 2]
    assert [item.seed for item in items] == [2**63 - 2, 2**63 - 1, 0]
    assert len({item.item_id for item in items}) == 3
    for item in items:
        alone = sample(reference, [item.seed], weights[None], "dpmpp_2m", 5, ADAPT_FROM)[0]
        expected = ((alone.clamp(-1, 1) + 1) * 127.5).numpy()
        assert item.content_type == "image/png"
        assert item.revision == "r1"
        assert np.abs(pixels(item) - expected[0]).max() <= 1
        stored = await world.items.get(ANN, item.item_id)
        assert np.array_equal(unpack_sample(stored.sample)[0], pixels(item))
        assert (stored.revision, stored.generation_id) == ("r1", "g-ann")


async def test_same_seed_gives_the_same_image_again(world: World) -> None:
    await world.commit(ANN, "r1")
    items, _ = await everything(world, spec(count=2, sampler="ddpm"))
    again, _ = await everything(world, spec(count=1, sampler="ddpm", seed=items[1].seed))
    assert np.abs(pixels(again[0]).astype(int) - pixels(items[1])).max() <= 1


async def test_items_are_encoded_as_their_generation_asks(world: World) -> None:
    asked = {"plain": ImageEncoding(), "small": ImageEncoding("webp", 4)}
    made = [(await everything(world, spec(count=1, generation_id=g, image=asked[g])))[0][0] for g in asked]
    assert [item.content_type for item in made] == ["image/png", "image/webp"]
    assert [Image.open(io.BytesIO(item.image)).size for item in made] == [(8, 8), (4, 4)]
    plain, small = [await world.items.get(ANN, item.item_id) for item in made]
    assert plain.sample == small.sample, "what is learnt from does not depend on the file"


async def test_an_item_is_encoded_again_from_what_is_kept(world: World) -> None:
    await world.commit(ANN, "r1")
    (first, item), _ = await everything(world, spec(count=2))
    again = await world.generator.render(ANN, item.item_id, ImageEncoding())
    assert again.item == replace(item, like_probability=None)
    assert (again.generation_id, again.item.index, again.item.revision) == (f"g-{ANN.user}", 1, "r1")
    small = await world.generator.render(ANN, first.item_id, ImageEncoding("webp", 4))
    assert Image.open(io.BytesIO(small.item.image)).size == (4, 4)
    with pytest.raises(ItemNotFound):
        await world.generator.render(UserKey(ANN.tenant, "bob"), item.item_id, ImageEncoding())
    await world.items.put(ANN, [StoredItem("g-9", b"damaged", "", "g", 0)])
    with pytest.raises(StorageDamaged):
        await world.generator.render(ANN, "g-9", ImageEncoding())


async def test_user_without_adapter_is_served_by_the_base(world: World) -> None:
    items, done = await everything(world, spec())
    assert done.revision == ""
    assert {item.revision for item in items} == {""}
    assert done.timings.denoising > 0
    assert done.timings.adapter_load == 0


async def test_share_of_the_items_explores(world: World) -> None:
    await world.commit(ANN, "r1")
    items, done = await everything(world, spec(count=8, exploration=0.25))
    made = {item.index: item.revision for item in items}
    assert sorted(made.values()) == ["", ""] + ["r1"] * 6
    assert done.revision == "r1"
    base, _ = await everything(world, spec(count=8, revision="base", generation_id="other"))
    plain = {item.index: pixels(item) for item in base}
    for item in items:
        same = np.abs(pixels(item).astype(int) - plain[item.index]).max() <= 1
        assert same == (item.revision == "")
    _, all_base = await everything(world, spec(exploration=1.0))
    assert all_base.revision == ""


async def test_many_users_at_once(world: World, reference: Denoiser) -> None:
    users = [UserKey("tenant", f"u{i}") for i in range(12)]
    weights = [await world.commit(user, "r1", random_weights(reference, i)) for i, user in enumerate(users)]
    results = await asyncio.gather(*(everything(world, spec(user)) for user in users))
    for i, (items, done) in enumerate(results):
        assert done.revision == "r1"
        alone = sample(reference, [items[0].seed], weights[i][None], "ddim", 4, ADAPT_FROM)[0, 0]
        assert np.abs(pixels(items[0]) - ((alone + 1) * 127.5).numpy()).max() <= 1


async def test_refusals_leave_no_rows_behind(gated: World) -> None:
    refusals: list[tuple[GenerationSpec, type[PapaError]]] = [
        (spec(count=4, revision="r9"), RevisionNotFound),
        (spec(count=4, sampler="euler"), InvalidRequest),
        (spec(count=4, deadline=time.monotonic() - 1), DeadlineExceeded),
    ]
    for asked, kind in refusals:
        with pytest.raises(kind):
            await everything(gated, asked)
    await reserved_once_all_is_free(gated, 4)
    with pytest.raises(QueueFull):
        await everything(gated, spec(count=1))


async def reserved_once_all_is_free(world: World, rows: int) -> None:
    """The engine's thread gives back what it had been handed; until it has, the queue refuses."""
    while True:
        try:
            return world.engine.inbox.reserve(ANN, rows, 1)
        except QueueFull:
            await asyncio.sleep(0.01)


async def assert_alone(world: World, gate: GatedDenoiser) -> None:
    """The next generation shares its steps with nobody."""
    gate.open()
    await everything(world, spec(count=1, steps=2))
    assert [len(step) for step in gate.steps[-2:]] == [1, 1]
    assert len(gate.steps) <= 4


async def test_deadline_frees_the_rows(gated: World, gate: GatedDenoiser) -> None:
    late = asyncio.ensure_future(everything(gated, spec(count=4, steps=500, deadline=time.monotonic() + 1)))
    await asyncio.to_thread(gate.advance)
    with pytest.raises(DeadlineExceeded):
        await late
    await assert_alone(gated, gate)


async def test_closing_the_iterator_frees_the_rows(gated: World, gate: GatedDenoiser) -> None:
    async with aclosing(gated.generator.run(spec(count=4, steps=500))) as events:
        waiting = asyncio.ensure_future(anext(events))
        await asyncio.to_thread(gate.advance)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    await assert_alone(gated, gate)


async def test_user_who_is_deleted_meanwhile_gets_nothing(gated: World, gate: GatedDenoiser) -> None:
    run = asyncio.ensure_future(everything(gated, spec()))
    await asyncio.to_thread(gate.advance)
    await gated.users.delete(ANN)
    gate.open()
    with pytest.raises(UserDeleted):
        await run


async def test_revision_whose_samples_are_not_finite_is_given_up(world: World) -> None:
    await world.commit(ANN, "r1")
    await world.commit(ANN, "r2", torch.full((world.denoiser.layout.size,), 1e30), parent="r1")
    with pytest.raises(RevisionDamaged):
        await everything(world, spec())
    _, done = await everything(world, spec())
    assert done.revision == "r1"


async def test_first_generation_of_a_revision_is_measured_once(world: World) -> None:
    def measured() -> float:
        return REGISTRY.get_sample_value("papa_feedback_to_served_seconds_count") or 0.0

    before = measured()
    await world.commit(ANN, "r1")
    for _ in range(2):
        await everything(world, spec())
    assert measured() == before + 1
    await world.commit(ANN, "r2", parent="r1")
    await everything(world, spec(exploration=1.0))
    assert measured() == before + 1, "the base served"
    await everything(world, spec())
    assert measured() == before + 2
