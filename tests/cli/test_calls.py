"""The commands that call a running service, over a socket."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

from papa_serving.cli.app import HINTS
from papa_serving.client import CallFailed
from papa_serving.contracts import errors
from papa_serving.contracts.feedback import FeedbackEvent, UserBatch
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.revisions import Revision

from tests.cli.conftest import Ended, Papa
from tests.gateway.support.fake_engine import done, items
from tests.gateway.support.service import Service

Call = Callable[..., Awaitable[Ended]]


async def test_generate_saves_the_images_and_names_them(papa_call: Call) -> None:
    ended = await papa_call("generate", "alice", "--count", "3", "--seed", "7", "--out", "pictures", "--json")
    assert ended.code == 0, ended.err
    document = ended.json
    assert document["revision"] == "000001-aa"
    assert [item["seed"] for item in document["items"]] == [7, 8, 9]
    files = [Path(item["file"]) for item in document["items"]]
    assert {file.parent for file in files} == {Path("pictures")}
    assert [file.read_bytes() for file in files] == [bytes([index]) * 16 for index in range(3)]


async def test_generate_passes_its_options_on(papa_call: Call, service: Service) -> None:
    options = ["--sampler", "dpmpp_2m", "--steps", "9", "--revision", "base", "--exploration", "0.5"]
    options += ["--min-like-probability", "0.25", "--overdraw", "3"]
    options += ["--format", "jpeg", "--max-edge", "64", "--quality", "70"]
    ended = await papa_call("generate", "alice", "-n", "1", *options)
    assert ended.code == 0, ended.err
    (request,) = service.engine.requests
    assert (request.sampler, request.steps, request.revision) == ("dpmpp_2m", 9, "base")
    assert (request.exploration, request.min_like_probability, request.overdraw) == (0.5, 0.25, 3.0)
    assert (request.image.format, request.image.max_edge, request.image.quality) == ("jpeg", 64, 70)
    assert request.user == "alice"


async def test_an_item_is_saved_again(papa_call: Call, service: Service) -> None:
    ended = await papa_call("items", "get", "alice", "g-2", "--format", "webp", "--max-edge", "9", "--json")
    assert ended.code == 0, ended.err
    assert ended.json["file"].endswith(".webp")
    assert await asyncio.to_thread(Path(ended.json["file"]).read_bytes) == b"\x02" * 16
    assert service.engine.rendered[0].image.max_edge == 9
    ended = await papa_call("items", "get", "alice", "gone-2")
    assert ended.code == 1
    assert "ITEM_NOT_FOUND" in ended.err


async def test_users_are_listed(papa_call: Call, service: Service) -> None:
    for user in ("alice", "bob"):
        await service.log.append([FeedbackEvent("e", UserKey("default", user), 1.0, item_id="i")])
    ended = await papa_call("users", "list", "--json")
    assert ended.code == 0, ended.err
    assert {(state["user"], state["likes"]) for state in ended.json} == {("alice", 1), ("bob", 1)}
    ended = await papa_call("users", "list")
    assert "alice" in ended.out
    assert "the backbone" in ended.out


async def test_generate_says_what_was_drawn_in_vain_and_what_is_missing(papa_call: Call, service: Service) -> None:
    service.engine.scripts = [[items(0, adapter=False, exploring=True), done(drawn=4, accepted=1)]]
    ended = await papa_call("generate", "alice", "-n", "2", "--min-like-probability", "0.9")
    assert "base, exploring" in ended.out
    assert "of 4 drawn; 1 found nothing above --min-like-probability" in ended.out


async def test_generate_prints_whole_ids_where_there_is_no_terminal(papa_call: Call, service: Service) -> None:
    ended = await papa_call("generate", "alice", "-n", "1")
    (request,) = service.engine.requests
    assert f"{request.generation_id}-0" in ended.out


async def test_feedback_is_acknowledged_event_by_event(papa_call: Call, service: Service) -> None:
    service.log.missing.add("unknown")
    ended = await papa_call("feedback", "alice", "--like", "known", "--dislike", "unknown", "--json")
    assert ended.code == 1
    first, second = ended.json["outcomes"]
    assert first["sequence"] == 1
    assert second["reason"] == "ITEM_NOT_FOUND"
    graded = await papa_call("feedback", "alice", "--grade", "known=-0.5")
    assert graded.code == 0, graded.err
    assert "accepted" in graded.out
    state = (await papa_call("users", "get", "alice", "--json")).json
    assert (state["likes"], state["dislikes"], state["pending_events"]) == (1, 1, 2)


async def test_feedback_tells_types_origin_and_notes(papa_call: Call, service: Service) -> None:
    said = ["--event", "a=b=click", "--like", "c", "--generation", "g7", "--metadata", "page=home", "--tag", "spring"]
    ended = await papa_call("feedback", "alice", *said)
    assert ended.code == 0, ended.err
    like, click = service.log.accepted
    assert (click.item_id, click.attribution.type, like.attribution.type) == ("a=b", "click", "")
    for event in (like, click):
        assert event.attribution.generation_id == "g7"
        assert (event.attribution.notes.metadata, event.attribution.notes.tags) == ({"page": "home"}, ("spring",))
    refused = await papa_call("feedback", "alice", "--event", "a=share")
    assert refused.code == 1
    assert "must be one of view, click, cart, purchase, like, dislike, skip" in refused.err


async def test_feedback_that_says_nothing_is_refused(papa: Papa) -> None:
    assert "there is nothing to say" in papa("feedback", "alice").err
    assert "--grade takes ITEM=GRADE" in papa("feedback", "alice", "--grade", "item").err
    assert "--event takes ITEM=TYPE" in papa("feedback", "alice", "--event", "click").err
    assert "--metadata takes KEY=TEXT" in papa("feedback", "alice", "--like", "i", "--metadata", "page").err
    assert "cannot be read" in papa("feedback", "alice", "--like-image", "nowhere.png").err


async def test_what_the_service_refuses_is_one_line(papa_call: Call) -> None:
    ended = await papa_call("generate", "alice", "--count", "10000")
    assert ended.code == 1
    assert "count" in ended.err
    assert "INVALID_REQUEST" in ended.err


async def test_users_are_rolled_back_reset_and_deleted(papa_call: Call, service: Service) -> None:
    await papa_call("feedback", "alice", "--like", "known")
    revision = await _learn(service)
    listed = await papa_call("users", "revisions", "alice", "--json")
    assert [each["name"] for each in listed.json] == [revision]
    assert revision in (await papa_call("users", "revisions", "alice")).out
    assert "the backbone" in (await papa_call("users", "reset", "alice")).out
    assert (await papa_call("users", "rollback", "alice", revision, "--json")).json["current_revision"]["parent"] == ""
    assert "REVISION_NOT_FOUND" in (await papa_call("users", "rollback", "alice", "000009-ff")).err
    receipt = (await papa_call("users", "delete", "alice", "--yes", "--json")).json
    assert receipt["receipt_id"]
    assert "USER_DELETED" in (await papa_call("users", "get", "alice")).err


async def test_adapters_are_the_users_revisions(papa_call: Call, service: Service) -> None:
    await papa_call("feedback", "alice", "--like", "known")
    revision = await _learn(service)
    assert [each["name"] for each in (await papa_call("adapters", "list", "alice", "--json")).json] == [revision]
    assert (await papa_call("adapters", "reset", "alice", "--json")).json["current_revision"] is None
    back = (await papa_call("adapters", "rollback", "alice", revision, "--json")).json
    assert back["current_revision"]["name"] == revision


async def test_health_and_smoke_in_json(papa_call: Call, service: Service) -> None:
    await service.until_serving("papa.serving.v1.GenerationService")
    assert (await papa_call("health", "--json")).json == {
        "GenerationService": True, "FeedbackService": True, "UserService": True,
    }  # fmt: skip
    smoke = await papa_call("smoke", "--json")
    assert (smoke.json["content_type"], smoke.json["sequence"]) == ("image/png", 1)
    nobody = await papa_call("health", "--json", "--service", "Nonsense", "--timeout", "1")
    assert (nobody.code, nobody.json) == (1, {"Nonsense": False})


async def _learn(service: Service) -> str:
    """Commits what is pending as a trainer would."""
    user = UserKey("default", "alice")
    partition = user.partition(service.log.partitions)
    lease = await service.log.acquire(partition, "trainer", 30)
    assert lease is not None
    events = await service.log.read(lease, "", 10)
    revision = Revision("000001-aa", "", 1.0, "0" * 64, len(events), len(events), 1, len(events))
    assert await service.log.commit(lease, UserBatch(user, tuple(events)), revision)
    return revision.name


async def test_nobody_there_is_one_line(papa: Papa) -> None:
    ended = papa("users", "get", "alice", "--address", "127.0.0.1:1")
    assert ended.code == 1
    assert ended.err.startswith("papa: UNAVAILABLE")
    assert "papa up starts one" in ended.err
    assert ended.err.count("\n") == 1


async def test_export_and_import(papa_call: Call, service: Service, tmp_path: Path) -> None:
    files = {"adapter_config.json": b"{}", "adapter_model.safetensors": b"w", "state.safetensors": b"s"}
    sums = {name: {"sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()}
    manifest = json.dumps({"backbone": "b" * 64, "files": sums}).encode()
    made = Revision("000001-aa", "", 1_700_000_000.0, hashlib.sha256(manifest).hexdigest(), 1, 1)
    alice = UserKey("default", "alice")
    await service.revisions.put(alice, made.name, {**files, "manifest.json": manifest})
    service.users.commit(alice, made)

    exported = await papa_call("users", "export", "alice", "--out", "taken", "--json")
    assert exported.code == 0, exported.err
    assert exported.json["state"]["current_revision"]["name"] == made.name
    assert (tmp_path / "taken" / "history" / "000001-aa.json").read_bytes() == manifest
    for name, data in files.items():
        assert (tmp_path / "taken" / name).read_bytes() == data

    imported = await papa_call("users", "import", "bob", "taken", "--json")
    assert imported.code == 0, imported.err
    (request,) = service.engine.packed
    assert request.backbone == "b" * 64
    assert dict(request.files) == {**files, "manifest.json": manifest}
    assert imported.json["name"].startswith("000001-")
    assert "serving 000002-" in (await papa_call("users", "import", "bob", "taken")).out

    empty = await papa_call("users", "import", "bob", ".")
    assert empty.code == 1
    assert "holds no adapter" in empty.err


async def test_an_export_writes_nowhere_else(papa_call: Call, service: Service, tmp_path: Path) -> None:
    """A gateway that is none may send any name."""
    files = {"adapter_config.json": b"{}"}
    manifest = json.dumps({"files": {"../../evil": {"sha256": hashlib.sha256(b"x").hexdigest()}}}).encode()
    made = Revision("000001-aa", "", 1_700_000_000.0, hashlib.sha256(manifest).hexdigest(), 1, 1)
    alice = UserKey("default", "alice")
    await service.revisions.put(alice, made.name, {**files, "manifest.json": manifest})
    service.revisions._files[alice, made.name]["../../evil"] = b"x"
    service.users.commit(alice, made)

    async def get(user: UserKey, revision: str, name: str) -> bytes:
        return service.revisions._files[user, revision][name]

    service.revisions.get = get  # type: ignore[method-assign]
    ended = await papa_call("users", "export", "alice", "--out", "deep/er/taken")
    assert ended.code == 1
    assert "odd name" in ended.err
    written = await asyncio.to_thread(lambda: [path.name for path in tmp_path.rglob("*")])
    assert "evil" not in written


def test_hints_are_for_reasons_that_there_are() -> None:
    known = {kind.reason for kind in vars(errors).values() if isinstance(kind, type) and hasattr(kind, "reason")}
    assert set(HINTS) <= {*known, CallFailed.reason}
