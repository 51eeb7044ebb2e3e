"""What callers are told of each item's chances, and when nothing is known of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import torch
from papa_serving.contracts.generation import GeneratedItem
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.samples import unpack_sample
from prometheus_client import REGISTRY

from papa.denoiser import Denoiser
from papa.pixels import to_x0
from papa.revision_files import HEAD_FILE
from papa.sampler import sample
from papa.taste import Head, Taste
from tests.generator.support import ANN, PATIENCE, Files, World, everything, spec, tiny_denoiser

BOB = UserKey("tenant", "bob")


@asynccontextmanager
async def running_world(judges: bool = True) -> AsyncIterator[World]:
    world = World(tiny_denoiser(), judges=judges)
    world.engine.start()
    yield world
    await asyncio.to_thread(world.engine.stop, PATIENCE)


@pytest.fixture(scope="module")
def head(reference: Denoiser) -> Head:
    """Of a user who likes what is bright."""
    samples = sample(reference, list(range(100, 124)), None, steps=4)
    bright = samples.flatten(1).mean(1)
    grades = torch.where(bright > bright.median(), 1.0, -1.0)
    found = Taste(reference.features(samples).half(), grades, None, 0.3, 0).head()
    assert found is not None
    return found


async def stored_features(world: World, reference: Denoiser, user: UserKey, items: list[GeneratedItem]) -> torch.Tensor:
    stored = [unpack_sample((await world.items.get(user, item.item_id)).sample) for item in items]
    return reference.features(torch.stack([to_x0(torch.from_numpy(each.copy())) for each in stored]))


async def test_an_item_has_the_chance_that_the_users_own_labels_give_it(reference: Denoiser, head: Head) -> None:
    """Whoever else is in the batch, and of items that explore as well."""
    async with running_world() as world:
        await world.commit(ANN, "r1", head=head)
        await world.commit(BOB, "r1")
        both = await asyncio.gather(
            everything(world, spec(ANN, count=4, exploration=0.5)), everything(world, spec(BOB, count=3))
        )
        (hers, _), (his, _) = both
        hers.sort(key=lambda item: item.index)
        expected = head.probability(await stored_features(world, reference, ANN, hers)).tolist()
    assert [item.like_probability for item in hers] == pytest.approx(expected, abs=5e-3)
    assert len(set(expected)) == 4
    assert {item.revision for item in hers} == {"r1", ""}
    assert [item.like_probability for item in his] == [None] * 3, "a revision of the former recipe has no head"


@pytest.mark.parametrize(("judges", "asked"), [(False, ""), (True, "base")])
async def test_nothing_is_said_where_it_is_switched_off_or_the_base_was_asked_for(
    head: Head, judges: bool, asked: str
) -> None:
    async with running_world(judges) as world:
        await world.commit(ANN, "r1", head=head)
        items, _ = await everything(world, spec(count=2, revision=asked))
    assert [item.like_probability for item in items] == [None, None]


def without_head(files: Files) -> Files:
    return {name: data for name, data in files.items() if name != HEAD_FILE}


def flipped(files: Files) -> Files:
    return {**files, HEAD_FILE: files[HEAD_FILE][:-1] + bytes([files[HEAD_FILE][-1] ^ 1])}


@pytest.mark.parametrize(("spoil", "reason"), [(without_head, "missing"), (flipped, "checksum")])
async def test_a_revision_with_a_damaged_head_gives_way_to_its_parent(
    head: Head, spoil: Callable[[Files], Files], reason: str
) -> None:
    async with running_world() as world:
        await world.commit(ANN, "r1", head=head)
        await world.commit(ANN, "r02", parent="r1", head=head, spoil=spoil)
        before = REGISTRY.get_sample_value("papa_adapter_refused_total", {"reason": reason}) or 0.0
        items, done = await everything(world, spec(count=1))
    assert done.revision == "r1"
    assert items[0].like_probability is not None
    assert REGISTRY.get_sample_value("papa_adapter_refused_total", {"reason": reason}) == before + 1
