"""Which adapter answers: the newest, the asked one, or the nearest good one; and from where it comes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import torch
from papa_serving.contracts.errors import RevisionDamaged, RevisionNotFound, UserDeleted
from papa_serving.contracts.identity import UserKey
from papa_serving.generator.job import AdapterKey
from prometheus_client import REGISTRY

from papa.denoiser import Denoiser
from papa.lora import LoraConfig
from papa.revision_files import MANIFEST_FILE, WEIGHTS_FILE
from papa.sampler import sample
from tests.generator.support import Files, World, not_finite, random_weights, tiny_denoiser
from tests.papa.support import tiny_unet

ANN, BOB = UserKey("tenant", "ann"), UserKey("tenant", "bob")


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


@pytest.fixture
async def world(reference: Denoiser) -> World:
    return World(reference)


async def served(world: World, user: UserKey = ANN, asked: str = "") -> str:
    resolved = await world.adapters.resolve(user, asked)
    return resolved.record.name if resolved else "base"


async def test_newest_exact_and_base(world: World) -> None:
    assert await served(world) == "base"
    old = await world.commit(ANN, "r1")
    new = await world.commit(ANN, "r02", parent="r1")
    assert [await served(world, ANN, asked) for asked in ("", "r1", "base")] == ["r02", "r1", "base"]
    resolved = [await world.adapters.resolve(ANN, asked) for asked in ("r1", "r02")]
    for each, weights in zip(resolved, (old, new), strict=True):
        assert each is not None
        assert torch.equal(each.adapter.weights, weights)
    with pytest.raises(RevisionNotFound):
        await world.adapters.resolve(ANN, "r3")
    with pytest.raises(RevisionNotFound):
        await world.adapters.resolve(BOB, "r1")


async def test_tiers(world: World) -> None:
    async def found(tier: str) -> bool:
        before = counted("papa_adapter_lookups_total", tier=tier)
        await served(world)
        return counted("papa_adapter_lookups_total", tier=tier) == before + 1

    await world.commit(ANN, "r1")
    assert await found("store")
    assert await found("host")
    resolved = await world.adapters.resolve(ANN, "")
    assert resolved is not None
    world.slots.acquire(resolved.adapter)
    assert await found("device")
    assert world.revisions.fetched == {"r1": 1}
    await world.commit(ANN, "r2", parent="r1")
    assert await found("store"), "no cache is keyed by the user alone"


async def test_host_cache_is_bounded_and_drops_the_least_recently_used(reference: Denoiser) -> None:
    world = World(reference, host_cache=2)
    users = [UserKey("tenant", name) for name in "abc"]
    for user in users:
        await world.commit(user, f"r-{user.user}")
    for user in (users[0], users[1], users[0], users[2], users[0], users[1]):
        await served(world, user)
    assert world.revisions.fetched == {"r-a": 1, "r-b": 2, "r-c": 1}


async def test_stampede_loads_once_and_does_not_block_others(world: World) -> None:
    await world.commit(ANN, "r1")
    await world.commit(BOB, "r1b")
    assert await served(world, BOB) == "r1b"
    world.revisions.hold.clear()
    crowd = [asyncio.ensure_future(served(world)) for _ in range(50)]
    await asyncio.sleep(0)
    assert await asyncio.wait_for(served(world, BOB), 60) == "r1b"
    crowd[0].cancel()
    await asyncio.sleep(0)
    world.revisions.hold.set()
    results = await asyncio.gather(*crowd, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert results[1:] == ["r1"] * 49
    assert world.revisions.fetched["r1"] == 1


def flipped(name: str) -> Callable[[dict[str, bytes]], Files]:
    def spoil(files: dict[str, bytes]) -> Files:
        data = bytearray(files[name])
        data[-5] ^= 4
        return files | {name: bytes(data)}

    return spoil


def truncated(files: dict[str, bytes]) -> Files:
    return files | {WEIGHTS_FILE: files[WEIGHTS_FILE][:-8]}


def lost(files: dict[str, bytes]) -> Files:
    return {name: data for name, data in files.items() if name != WEIGHTS_FILE}


def other_backbone() -> Denoiser:
    unet = tiny_unet()
    with torch.no_grad():
        unet.conv_in.weight.mul_(1.5)
    tiny = tiny_denoiser()
    return Denoiser(unet, tiny.schedule, tiny.sample_shape, "epsilon", tiny.layout.config)


DAMAGES = {
    "bit of the weights": ({"spoil": flipped(WEIGHTS_FILE)}, "checksum"),
    "bit of the manifest": ({"spoil": flipped(MANIFEST_FILE)}, "checksum"),
    "truncation": ({"spoil": truncated}, "checksum"),
    "lost file": ({"spoil": lost}, "missing"),
    "rank": ({"maker": tiny_denoiser(rank=3)}, "shape"),
    "backbone": ({"maker": other_backbone()}, "backbone"),
    "not a number": ({"weights": not_finite(tiny_denoiser())}, "finite"),
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_damaged_revision_is_never_served(world: World, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    how, reason = DAMAGES[damage]
    before = counted("papa_adapter_refused_total", reason=reason)
    await world.commit(ANN, "r1", **how)  # type: ignore[arg-type]
    assert await served(world) == "base"
    with pytest.raises(RevisionDamaged):
        await world.adapters.resolve(ANN, "r1")
    good = await world.commit(ANN, "r2")
    await world.commit(ANN, "r3", parent="r2", **how)  # type: ignore[arg-type]
    await world.commit(ANN, "r4", parent="r3", **how)  # type: ignore[arg-type]
    resolved = await world.adapters.resolve(ANN, "")
    assert resolved is not None
    assert resolved.record.name == "r2"
    assert torch.equal(resolved.adapter.weights, good)
    assert counted("papa_adapter_refused_total", reason=reason) == before + 3
    errors = [record for record in caplog.records if record.levelname == "ERROR"]
    assert {getattr(record, "reason", "") for record in errors} == {reason}


async def test_fallback_follows_the_parents_not_what_was_rolled_back(world: World) -> None:
    await world.commit(ANN, "r1")
    await world.commit(ANN, "r2", parent="r1")
    await world.commit(ANN, "r3", parent="r1", spoil=truncated)
    assert await served(world) == "r1"


async def test_damaged_one_is_not_fetched_for_every_generation(world: World) -> None:
    await world.commit(ANN, "r1", spoil=truncated)
    for _ in range(5):
        assert await served(world) == "base"
    assert world.revisions.fetched["r1"] == 1


async def test_lower_rank_and_other_scale_give_the_same_samples(world: World) -> None:
    tiny = tiny_denoiser()
    maker = Denoiser(tiny_unet(), tiny.schedule, tiny.sample_shape, "epsilon", LoraConfig(rank=1, alpha=3.0))
    weights = await world.commit(ANN, "r1", maker=maker)
    resolved = await world.adapters.resolve(ANN, "")
    assert resolved is not None
    made = sample(maker, [1], weights[None], steps=4)
    again = sample(world.denoiser, [1], resolved.adapter.weights[None], steps=4)
    torch.testing.assert_close(again, made, rtol=0, atol=1e-3)


async def test_deleted_user_leaves_the_caches(world: World) -> None:
    for user in (ANN, BOB):
        await world.commit(user, f"r-{user.user}")
        resolved = await world.adapters.resolve(user, "")
        assert resolved is not None
        world.slots.acquire(resolved.adapter)
        world.slots.release(resolved.adapter.key)
    assert world.adapters.users() == {ANN, BOB}
    await world.users.delete(ANN)
    for asked in ("", "base"):
        with pytest.raises(UserDeleted):
            await world.adapters.resolve(ANN, asked)
    assert world.adapters.users() == {BOB}
    assert world.slots.find(AdapterKey(ANN, "r-ann")) is None


async def test_store_outage_is_no_damage(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from papa_serving.contracts.errors import StorageUnavailable

    await world.commit(ANN, "r1", random_weights(world.denoiser, 1))

    async def down(*_args: object) -> bytes:
        raise StorageUnavailable("no answer")

    with monkeypatch.context() as outage:
        outage.setattr(world.revisions, "get", down)
        with pytest.raises(StorageUnavailable):
            await world.adapters.resolve(ANN, "")
    assert await served(world) == "r1"
