"""A store of an earlier release: refused with the way out, renamed by `papa store rehash`, then served and trained."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from papa_serving.contracts.generation import GenerationDone, GenerationSpec
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.items import BackboneInfo
from papa_serving.contracts.revisions import Revision
from papa_serving.contracts.samples import pack_sample
from papa_serving.generator.wiring import Room, Stores, assemble
from papa_serving.local.backbone_check import refuse_former_hash
from papa_serving.local.failure import Failure
from papa_serving.local.instance_lock import InstanceLock
from papa_serving.local.redis_process import RedisProcess
from papa_serving.settings import Settings
from papa_serving.store import open_items
from papa_serving.store.records import short_hash
from papa_serving.trainer.papa_updater import PapaUpdater
from papa_serving.trainer.process import check_backbone

from papa.adapter import Adapter, new_adapter
from papa.config import DEFAULT_UPDATE
from papa.denoiser import Denoiser, load_denoiser
from papa.revision_files import MANIFEST_FILE, Origin, digest, pack
from tests.cli.conftest import Papa, papa
from tests.papa.support import random_adapters
from tests.store.support import Backend, open_redis
from tests.trainer.learning import CONFIG, OFF
from tests.trainer.support import World, close_world, open_world, quick_settings, until
from tests.trainer.tiny_backbone import SHAPE, write_tiny_backbone

__all__ = ["papa"]  # a fixture

ADA = UserKey("default", "ada")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_backbone(tmp_path_factory.mktemp("backbone"))


@pytest.fixture(scope="module")
def denoiser(folder: Path) -> Denoiser:
    return load_denoiser(str(folder))


@dataclass(frozen=True)
class OldStore:
    """A store of an earlier release: a record and a revision with the backbone's former hash."""

    world: World
    backend: Backend
    info: BackboneInfo
    revision: str

    @property
    def settings(self) -> Settings:
        return self.world.settings

    @property
    def arguments(self) -> list[str]:
        settings = self.settings
        chosen = {
            "redis.url": settings.redis.url,
            "redis.prefix": settings.redis.prefix,
            "data_dir": settings.data_dir,
            "feedback.partitions": settings.feedback.partitions,
            "backbone": settings.backbone,
        }
        return [part for name, value in chosen.items() for part in ("--set", f"{name}={value}")]


@pytest.fixture
async def old(redis_server: RedisProcess, tmp_path: Path, folder: Path, denoiser: Denoiser) -> AsyncIterator[OldStore]:
    settings = quick_settings(redis_server.url, tmp_path / "data").model_copy(update={"backbone": str(folder)})
    world, backend = open_world(settings), open_redis(settings)
    info = BackboneInfo(denoiser.weights_hash, "shoes", denoiser.image_shape)
    await backend.items.publish_backbone(info)
    adapter = Adapter(random_adapters(denoiser, 1, scale=0.01)[0], new_adapter(denoiser).replay)
    files = pack(adapter, denoiser.layout, DEFAULT_UPDATE, Origin(denoiser.weights_hash, "", 1.0))
    made = Revision("000001-aa", "", 1.0, digest(files[MANIFEST_FILE]), 0, 0)
    await world.revisions.put(ADA, made.name, files)
    await world.log.adopt(ADA, made)
    yield OldStore(world, backend, info, made.name)
    await close_world(world)
    await backend.close()


async def room_of(store: OldStore) -> Room:
    """A generator as its replica builds it, announced."""
    room = assemble(store.settings, Stores(store.backend.users, store.world.revisions, store.backend.items))
    await store.backend.items.publish_backbone(room.backbone_info)
    return room


async def test_an_old_store_is_refused_with_the_way_out_then_served_and_trained_on(
    old: OldStore, papa: Papa, denoiser: Denoiser
) -> None:
    for refusing in (room_of(old), check_backbone(old.settings, denoiser.backbone_hash)):
        with pytest.raises(ValueError, match="run papa store rehash once, with the backbone") as error:
            await refusing
        assert "\n" not in str(error.value)
        assert f"({denoiser.weights_hash[:12]})" in str(error.value)
    with pytest.raises(Failure, match="papa store rehash"):
        await asyncio.to_thread(refuse_former_hash, old.settings)

    done = await asyncio.to_thread(papa, "store", "rehash", "--yes", "--json", *old.arguments)
    hashes = {"backbone_hash": denoiser.backbone_hash, "former_hash": denoiser.weights_hash}
    assert (done.code, done.json) == (0, {"renamed": True, **hashes})
    assert await old.backend.items.backbone_info() == replace(old.info, backbone_hash=denoiser.backbone_hash)
    again = await asyncio.to_thread(papa, "store", "rehash", "--yes", "--json", *old.arguments)
    assert (again.code, again.json) == (0, {"renamed": False, **hashes})

    await asyncio.to_thread(refuse_former_hash, old.settings)
    room = await room_of(old)
    room.engine.start()
    try:
        spec = GenerationSpec(user=ADA, count=1, request_id="q", generation_id="g", seed=1, steps=3)
        events = [event async for event in room.generator.run(spec)]
    finally:
        room.engine.stop()
    items = [item for event in events if not isinstance(event, GenerationDone) for item in event.items]
    assert [item.revision for item in items] == [old.revision]

    await check_backbone(old.settings, denoiser.backbone_hash)
    await old.world.say(ADA, "e1", "e2", "e3", sample=pack_sample(np.full(SHAPE, 200, np.uint8)))
    async with old.world.trainer(PapaUpdater(denoiser, CONFIG, OFF)):
        await until(lambda: old.world.has_revisions(ADA, 2))
    learnt = (await old.world.lineage(ADA))[-1]
    manifest = await old.world.manifest(ADA, learnt.name)
    assert (learnt.parent, manifest["backbone"]) == (old.revision, denoiser.backbone_hash)


async def test_a_store_of_another_backbone_is_still_refused(old: OldStore, papa: Papa) -> None:
    done = await asyncio.to_thread(papa, "store", "rehash", "--yes", *old.arguments, "--set", "backbone=mnist")
    assert done.code == 1
    assert "this store belongs to the backbone shoes" in done.err
    assert "always been served with: --set backbone=" in done.err
    assert await old.backend.items.backbone_info() == old.info


async def test_a_store_of_the_present_version_is_of_one_backbone_alone(old: OldStore, denoiser: Denoiser) -> None:
    await old.backend.items.rename_backbone(
        old.info.backbone_hash, replace(old.info, backbone_hash=denoiser.backbone_hash)
    )
    other = "2-" + "f" * 64
    with pytest.raises(ValueError, match="belongs to the backbone shoes") as error:
        await check_backbone(old.settings, other)
    assert short_hash(denoiser.backbone_hash) in str(error.value)
    assert "rehash" not in str(error.value)
    with pytest.raises(ValueError, match="belongs to the backbone shoes"):
        await check_backbone(old.settings, denoiser.weights_hash)


async def test_a_record_is_renamed_only_while_it_names_that_hash(backend: Backend) -> None:
    info = BackboneInfo("ab" * 32, "shoes", (1, 8, 8))
    renamed = replace(info, backbone_hash="2-" + "cd" * 32)
    assert not await backend.items.rename_backbone(info.backbone_hash, renamed)
    await backend.items.publish_backbone(info)
    assert not await backend.items.rename_backbone("ef" * 32, renamed)
    assert await backend.items.backbone_info() == info
    assert await backend.items.rename_backbone(info.backbone_hash, renamed)
    assert await backend.items.backbone_info() == renamed


@pytest.mark.redis
def test_the_store_of_a_stopped_papa_up_is_opened(papa: Papa, tmp_path: Path, folder: Path, denoiser: Denoiser) -> None:
    """The command starts its Redis and stops it at the end."""
    data = tmp_path / "papa-data"
    info = BackboneInfo(denoiser.weights_hash, "shoes", denoiser.image_shape)

    async def ask(url: str, publish: BackboneInfo | None) -> BackboneInfo | None:
        items = open_items(Settings(data_dir=data, redis={"url": url}))
        try:
            if publish is not None:
                await items.publish_backbone(publish)
            return await items.backbone_info()
        finally:
            await items.close()

    arguments = ("store", "rehash", "--yes", "--set", f"data_dir={data}", "--set", f"backbone={folder}")
    refused = papa(*arguments)
    assert (refused.code, "no Redis is named" in refused.err) == (1, True)
    assert not data.exists()
    with RedisProcess(data / "redis") as redis:
        asyncio.run(ask(redis.url, info))
    with InstanceLock(data):
        assert "a service is already running" in papa(*arguments).err
    done = papa(*arguments)
    assert done.code == 0, done.err
    assert denoiser.backbone_hash in done.out
    with RedisProcess(data / "redis") as redis:
        assert asyncio.run(ask(redis.url, None)) == replace(info, backbone_hash=denoiser.backbone_hash)
    assert papa("store", "check", "--set", f"data_dir={data}").code == 0
