"""ExportUser and ImportAdapter: the product's clients over a socket, the real checks behind a fake engine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import torch
from papa_serving.client import AsyncClient, GeneratorUnavailable, InvalidRequest, Retry, RevisionDamaged, UserDeleted
from papa_serving.contracts.errors import LineageConflict, PapaError
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.revisions import Revision
from papa_serving.generator import wire
from papa_serving.generator.packing import Packer
from papa_serving.store.file_revisions import FileRevisionStore
from papa_serving.stubs.engine.v1 import engine_pb2
from papa_serving.stubs.serving.v1 import types_pb2, user_pb2

from papa.adapter import Adapter, new_adapter
from papa.adoption import Adoption
from papa.config import UpdateConfig
from papa.denoiser import Denoiser
from papa.revision_files import Origin, digest, pack, unpack_weights
from tests.gateway.support.service import Service, refusal
from tests.papa.support import random_adapters, tiny_denoiser

CONFIG = UpdateConfig()


@pytest.fixture(scope="module")
def denoiser() -> Denoiser:
    return tiny_denoiser()


@pytest.fixture
async def stocked(unstarted: Service, denoiser: Denoiser, tmp_path: Path) -> AsyncIterator[Service]:
    """A service with revisions in real files and an engine that checks adapters like the generator."""
    packer = Packer(Adoption.of(denoiser, CONFIG, 10.0))

    def packing(request: engine_pb2.PackAdapterRequest) -> engine_pb2.PackAdapterResponse:
        try:
            return engine_pb2.PackAdapterResponse(packed=packer.pack(request))
        except PapaError as error:
            return engine_pb2.PackAdapterResponse(error=wire.run_error(error))

    unstarted.engine.packing = packing
    unstarted.revisions = FileRevisionStore(tmp_path / "revisions")  # type: ignore[assignment]
    await unstarted.start()
    yield unstarted


def client(service: Service) -> AsyncClient:
    return AsyncClient(service.gateway.address, retry=Retry(attempts=1))


async def learnt(service: Service, denoiser: Denoiser, user: UserKey, number: int, parent: str = "") -> Revision:
    """The files and the commit of a trainer."""
    adapter = Adapter(random_adapters(denoiser, 1, seed=number, scale=0.01)[0], new_adapter(denoiser).replay)
    origin = Origin(denoiser.backbone_hash, parent, 1.0, events=(f"e{number}",))
    files = pack(adapter, denoiser.layout, CONFIG, origin)
    sha256 = digest(files["manifest.json"])
    made = Revision(f"{number:06}-{sha256[:8]}", parent, 1_700_000_000.0 + number, sha256, 1, number)
    await service.revisions.put(user, made.name, files)
    service.users.commit(user, made)
    return made


async def weights(service: Service, denoiser: Denoiser, user: UserKey, revision: str, sha256: str) -> torch.Tensor:
    names = ("manifest.json", "adapter_model.safetensors")
    files = {name: await service.revisions.get(user, revision, name) for name in names}
    return unpack_weights(files, denoiser.layout, denoiser.hashes, sha256)


# Ids that would be somewhere else, were they ever a part of a path or of a key.
IDS = ["alice", "../../../etc/passwd", "..", "/etc/passwd", "a/../b", "{p00}:user:x", "C:\\x", "%2e%2e%2f", "é☃𝄞", "*"]


def outside(folder: Path) -> set[Path]:
    """Whatever there is in a folder, but for the store's own."""
    return {path for path in folder.rglob("*") if not path.is_relative_to(folder / "revisions")}


def depths(folder: Path) -> set[tuple[int, ...]]:
    """The lengths of the names that lead to a user's folder."""
    return {(len(path.parent.name), len(path.name)) for path in (folder / "revisions").glob("*/*")}


@pytest.mark.parametrize("name", IDS)
async def test_from_one_user_to_another(stocked: Service, denoiser: Denoiser, tmp_path: Path, name: str) -> None:
    source, target = UserKey("default", name), UserKey("default", f"{name}x")
    first = await learnt(stocked, denoiser, source, 1)
    second = await learnt(stocked, denoiser, source, 2, first.name)
    before = outside(tmp_path)
    async with client(stocked) as papa:
        export = await papa.export_user(name)
        assert [each.name for each in export.revisions] == [second.name, first.name]
        assert export.state.current_revision == export.revisions[0]
        history = [json.loads(export.files[f"history/{each.name}.json"])["events"] for each in export.revisions]
        assert history == [["e2"], ["e1"]]
        assert set(export.files) >= {"adapter_config.json", "adapter_model.safetensors", "state.safetensors"}

        imported = await papa.import_adapter(f"{name}x", export.files)
        assert (imported.parent, imported.events_applied) == ("", 0)
        assert (await papa.get_user(f"{name}x")).current_revision == imported
        again = await papa.import_adapter(f"{name}x", export.files)
        assert again.parent == imported.name
        assert again.name > imported.name
        older = await papa.export_user(name, revision=first.name)
        assert older.files["manifest.json"] == export.files[f"history/{first.name}.json"]
        receipt = await papa.delete_user(f"{name}x")
    assert receipt.revisions == 2
    await stocked.revisions.put(target, "probe", {"file": b""})
    assert await stocked.revisions.delete_user(target) == 1, "the deletion left nothing but the probe"
    assert outside(tmp_path) == before, "nothing was written elsewhere"
    assert depths(tmp_path) == {(2, 32)}, "folders are digests"


async def test_the_weights_arrive_as_they_left(stocked: Service, denoiser: Denoiser) -> None:
    source, target = UserKey("default", "alice"), UserKey("default", "bob")
    made = await learnt(stocked, denoiser, source, 1)
    async with client(stocked) as papa:
        imported = await papa.import_adapter("bob", (await papa.export_user("alice")).files)
    assert torch.equal(
        await weights(stocked, denoiser, source, made.name, made.sha256),
        await weights(stocked, denoiser, target, imported.name, imported.sha256),
    )


async def test_a_user_of_the_base_exports_no_adapter(stocked: Service, denoiser: Denoiser) -> None:
    await learnt(stocked, denoiser, UserKey("default", "alice"), 1)
    async with client(stocked) as papa:
        await papa.reset("alice")
        export = await papa.export_user("alice")
        assert export.state.current_revision is None
        assert [name for name in export.files if "/" not in name] == []
        assert len(export.revisions) == 1
        stranger = await papa.export_user("nobody")
    assert (stranger.revisions, stranger.files) == ((), {})


async def test_a_damaged_revision_is_not_exported(stocked: Service, denoiser: Denoiser, tmp_path: Path) -> None:
    user = UserKey("default", "alice")
    first = await learnt(stocked, denoiser, user, 1)
    second = await learnt(stocked, denoiser, user, 2, first.name)
    damaged = tmp_path / "revisions" / user.digest[:2] / user.digest / second.name / "adapter_model.safetensors"
    data = bytearray(damaged.read_bytes())
    data[-3] ^= 1
    damaged.write_bytes(data)
    async with client(stocked) as papa:
        with pytest.raises(RevisionDamaged):
            await papa.export_user("alice")
        assert (await papa.export_user("alice", revision=first.name)).files


async def test_what_does_not_fit_is_refused_and_changes_nothing(stocked: Service, denoiser: Denoiser) -> None:
    await learnt(stocked, denoiser, UserKey("default", "alice"), 1)
    async with client(stocked) as papa:
        files = (await papa.export_user("alice")).files
        wrong = {
            "files": {**files, "adapter_model.safetensors": files["adapter_model.safetensors"][:-4]},
            "backbone": {name: files[name] for name in list(files) if name != "manifest.json"},
        }
        for field, given in wrong.items():
            with pytest.raises(InvalidRequest) as refused:
                await papa.import_adapter("bob", given, backbone_hash="f" * 64 if field == "backbone" else "")
            assert [each.field for each in refused.value.violations] == [field]
        with pytest.raises(InvalidRequest, match="name the hash"):
            await papa.import_adapter("bob", wrong["backbone"])
        assert (await papa.get_user("bob")).current_revision is None


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda request: request.files[0].MergeFrom(user_pb2.AdapterFile(sha256="00")), "files[0].sha256"),
        (lambda request: request.files[0].MergeFrom(user_pb2.AdapterFile(data=b"!")), "files[0].sha256"),
        (lambda request: request.files.add(name="../../evil.py"), "files[2].name"),
        (lambda request: request.files.add(name="adapter_config.json"), "files"),
        (lambda request: request.files.pop(), "files"),
        (lambda request: request.ClearField("backbone"), "backbone"),
        (lambda request: request.user.Clear(), "user.user"),
    ],
)
async def test_a_malformed_import_names_its_field(service: Service, change, field: str) -> None:  # type: ignore[no-untyped-def]
    from tests.gateway.support.methods import GOOD

    request = GOOD["ImportAdapter"](types_pb2.User(user="alice"))
    change(request)
    refused = await refusal(service.user.ImportAdapter(request))
    assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
    assert field in refused.violations
    assert service.engine.packed == []


async def test_an_import_that_lost_its_parent_is_done_again(stocked: Service, denoiser: Denoiser) -> None:
    user = UserKey("default", "alice")
    first = await learnt(stocked, denoiser, user, 1)
    async with client(stocked) as papa:
        files = (await papa.export_user("alice")).files
        inner, made = stocked.engine.packing, []
        assert inner is not None

        def overtaken(request: engine_pb2.PackAdapterRequest) -> engine_pb2.PackAdapterResponse:
            if not made:
                made.append(asyncio.run_coroutine_threadsafe(commit_between(), loop).result())
            return inner(request)

        async def commit_between() -> Revision:
            return await learnt(stocked, denoiser, user, 2, first.name)

        loop = asyncio.get_running_loop()
        stocked.engine.packing = overtaken
        imported = await papa.import_adapter("alice", files)
        assert imported.parent == made[0].name
        assert len(stocked.engine.packed) == 2


async def test_an_import_for_a_deleted_user_leaves_no_files(stocked: Service, denoiser: Denoiser) -> None:
    await learnt(stocked, denoiser, UserKey("default", "alice"), 1)
    inner, loop, bob = stocked.engine.packing, asyncio.get_running_loop(), UserKey("default", "bob")
    assert inner is not None

    def deleted(request: engine_pb2.PackAdapterRequest) -> engine_pb2.PackAdapterResponse:
        asyncio.run_coroutine_threadsafe(stocked.users.delete(bob), loop).result()
        return inner(request)

    async with client(stocked) as papa:
        files = (await papa.export_user("alice")).files
        stocked.engine.packing = deleted
        with pytest.raises(UserDeleted):
            await papa.import_adapter("bob", files)
    assert await stocked.revisions.delete_user(bob) == 0


async def test_an_import_without_a_generator_may_be_tried_again(stocked: Service, denoiser: Denoiser) -> None:
    await learnt(stocked, denoiser, UserKey("default", "alice"), 1)
    async with client(stocked) as papa:
        files = (await papa.export_user("alice")).files
        await stocked.engine.die()
        with pytest.raises(GeneratorUnavailable) as failure:
            await papa.import_adapter("bob", files)
    assert failure.value.retry_after is not None


async def test_updates_that_keep_coming_between_end_an_import(stocked: Service, denoiser: Denoiser) -> None:
    await learnt(stocked, denoiser, UserKey("default", "alice"), 1)

    async def always(*_: object) -> None:
        raise LineageConflict("not any more")

    async with client(stocked) as papa:
        files = (await papa.export_user("alice")).files
        stocked.log.adopt = always  # type: ignore[method-assign]
        with pytest.raises(LineageConflict):
            await papa.import_adapter("bob", files)
