"""Exploration, images, forgetting, and what crosses the wire."""

from __future__ import annotations

import asyncio
import io
import math
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from papa_serving.contracts import limits
from papa_serving.contracts.attribution import Notes
from papa_serving.contracts.errors import (
    InvalidRequest,
    QueueFull,
    StorageUnavailable,
    Unauthenticated,
    UserDeleted,
    error_from_reason,
)
from papa_serving.contracts.generation import (
    IMAGE_FORMATS,
    FinishedItems,
    GeneratedItem,
    GenerationDone,
    GenerationTimings,
    ImageEncoding,
)
from papa_serving.contracts.identity import UserKey
from papa_serving.generator.access import EngineAccess
from papa_serving.generator.adapters import Adapters, forget_deleted_users
from papa_serving.generator.encoding import content_type, encode
from papa_serving.generator.generation import explored
from papa_serving.generator.wire import check_pack_request, error_to_wire, event_to_wire, spec_from_wire
from papa_serving.settings import GatewaySettings
from papa_serving.stubs.engine.v1 import engine_pb2
from papa_serving.watched_file import current_secret
from PIL import Image

from papa.denoiser import Denoiser
from papa.pixels import to_pixels
from tests.generator.support import World


@given(st.integers(1, 64), st.floats(0, 1))
def test_exploring_items_are_as_many_as_asked_and_spread(count: int, share: float) -> None:
    chosen = explored(count, share)
    assert len(chosen) == round(share * count)
    assert all(0 <= index < count for index in chosen)
    gaps = np.diff(sorted(chosen))
    assert len(gaps) == 0 or gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
def test_png_holds_the_very_pixels(channels: int, mode: str) -> None:
    samples = torch.linspace(-1.2, 1.2, channels * 20).view(1, channels, 4, 5)
    pixels = to_pixels(samples)[0].numpy()
    image = Image.open(io.BytesIO(encode(pixels, ImageEncoding())))
    assert image.mode == mode
    assert np.array_equal(np.asarray(image).reshape(4, 5, channels), pixels.transpose(1, 2, 0))
    assert (pixels.min(), pixels.max()) == (0, 255)
    assert to_pixels(torch.zeros(1, 1, 1, 1)).item() in (127, 128)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("name", IMAGE_FORMATS)
def test_every_format_holds_every_kind_of_picture(name: str, channels: int) -> None:
    pixels = np.full((channels, 40, 60), 200, np.uint8)
    encoding = ImageEncoding(name)
    image = Image.open(io.BytesIO(encode(pixels, encoding)))
    assert content_type(encoding) == Image.MIME[image.format or ""]
    assert image.size == (60, 40)
    transparent = channels == 4 and name != "jpeg"
    found = np.asarray(image.convert("RGBA" if transparent else "RGB"))
    # Behind an alpha of 200 a grey of 200 over white is 212.
    expected = 212 if channels == 4 and not transparent else 200
    assert np.abs(found.astype(int) - expected).max() <= 3
    assert image.mode == "RGBA" if transparent else image.mode in ("L", "RGB")


@pytest.mark.parametrize(
    ("edge", "size"), [(0, (60, 40)), (30, (30, 20)), (60, (60, 40)), (600, (60, 40)), (1, (1, 1))]
)
def test_a_thumbnail_keeps_its_proportions_and_is_never_enlarged(edge: int, size: tuple[int, int]) -> None:
    image = encode(np.zeros((3, 40, 60), np.uint8), ImageEncoding("webp", edge))
    assert Image.open(io.BytesIO(image)).size == size


@pytest.mark.parametrize("name", ["webp", "jpeg"])
def test_quality_is_that_of_the_encoder(name: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (3, 64, 64), np.uint8)
    sizes = [len(encode(noise, ImageEncoding(name, quality=quality))) for quality in (1, 50, 90, 100)]
    assert sizes == sorted(set(sizes))
    assert len(encode(noise, ImageEncoding(name))) == sizes[2]


async def test_deleted_users_leave_the_caches_unasked(
    reference: Denoiser, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world, users = World(reference), [UserKey("tenant", name) for name in "abc"]
    forgotten = asyncio.Event()
    monkeypatch.setattr(world.adapters, "forget", lambda user: (Adapters.forget(world.adapters, user), forgotten.set()))
    forgetting = asyncio.create_task(forget_deleted_users(world.users, world.adapters, every=0.01))
    for user in users:
        await world.commit(user, "r1")
        await world.adapters.resolve(user, "")
    with monkeypatch.context() as outage:
        asked = asyncio.Event()

        async def down(_user: UserKey) -> None:
            asked.set()
            raise StorageUnavailable("no answer")

        outage.setattr(world.users, "current", down)
        await asyncio.wait_for(asked.wait(), 60)
    assert world.adapters.users() == set(users)
    await world.users.delete(users[1])
    await asyncio.wait_for(forgotten.wait(), 60)
    assert world.adapters.users() == {users[0], users[2]}
    assert not forgetting.done()
    forgetting.cancel()
    assert "could not be checked" in caplog.text


def test_wire() -> None:
    request = engine_pb2.RunRequest(
        request_id="q", generation_id="g", tenant="t", user="u", count=3, seed=2**63 - 1, sampler="ddpm", steps=9,
        revision="base", exploration=-1, seconds_left=12.5, prompt="p", traceparent="tp",
        min_like_probability=0.75, overdraw=1.5, image=engine_pb2.ImageEncoding(format="webp", max_edge=64, quality=70),
        notes=Notes({"page": "é"}, ("a",)).encode(),
    )  # fmt: skip
    spec = spec_from_wire(request)
    assert spec.user == UserKey("t", "u")
    for name in (
        "request_id",
        "generation_id",
        "count",
        "seed",
        "sampler",
        "steps",
        "revision",
        "exploration",
        "min_like_probability",
        "overdraw",
    ):
        assert getattr(spec, name) == getattr(request, name)
    assert (spec.prompt, spec.traceparent) == ("p", "tp")
    assert spec.image == ImageEncoding("webp", 64, 70)
    assert spec.notes == Notes({"page": "é"}, ("a",))
    request.ClearField("image")
    assert spec_from_wire(request).image == ImageEncoding("png"), "a gateway of a former release asks for nothing"
    assert 0 < spec.deadline - time.monotonic() <= 12.5
    request.seconds_left = 0.0
    assert spec_from_wire(request).deadline == 0.0

    made = tuple(GeneratedItem(f"i{i}", b"png", "image/png", 7 + i, i, "r1" * i, 0.5, i == 0) for i in range(2))
    items = event_to_wire(FinishedItems(made, 5)).items
    assert items.drawn == 5
    assert [item.exploring for item in items.items] == [True, False]
    assert items.revision == "r1"
    assert [(item.item_id, item.seed, item.index, item.adapter) for item in items.items] == [
        ("i0", 7, 0, False),
        ("i1", 8, 1, True),
    ]
    done = event_to_wire(GenerationDone("r1", GenerationTimings(0.5, 2.0, 0.25), 2, 5, 3)).done
    assert (done.drawn, done.accepted) == (5, 3)
    assert (
        done.revision,
        done.queued_seconds,
        done.denoising_seconds,
        done.adapter_load_seconds,
        done.noise_version,
    ) == (
        "r1",
        0.5,
        2.0,
        0.25,
        2,
    )


GOOD = {"generation_id": "g", "user": "u", "count": 1}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tenant", "t" * 129), ("user", ""), ("user", "u" * 129), ("generation_id", ""), ("generation_id", "g" * 129),
        ("request_id", "q" * 129), ("count", 0), ("count", limits.MAX_COUNT + 1), ("count", 2**32 - 1),
        ("prompt", "p" * 1_001), ("negative_prompt", "p" * 1_001), ("seed", 2**63), ("sampler", "s" * 129),
        ("steps", limits.MAX_STEPS + 1), ("revision", "r" * 129), ("exploration", 1.1), ("exploration", math.nan),
        ("min_like_probability", 1.1), ("min_like_probability", math.nan), ("overdraw", 0.5), ("overdraw", 4.5),
        ("overdraw", math.nan),
        ("guidance", 31.0), ("guidance", math.inf), ("guidance", math.nan), ("seconds_left", -1.0),
        ("seconds_left", math.inf), ("seconds_left", math.nan), ("traceparent", "0" * 129),
        ("image.format", engine_pb2.ImageEncoding(format="tiff")),
        ("image.max_edge", engine_pb2.ImageEncoding(max_edge=4_097)),
        ("image.quality", engine_pb2.ImageEncoding(quality=101)),
        ("notes", b"[" * (limits.MAX_NOTES_BYTES + 1)), ("notes", b"[]"), ("notes", b"{"),
    ],
)  # fmt: skip
def test_the_engine_refuses_what_the_gateway_would(field: str, value: object) -> None:
    spec_from_wire(engine_pb2.RunRequest(**GOOD))
    with pytest.raises(InvalidRequest) as refusal:
        spec_from_wire(engine_pb2.RunRequest(**(GOOD | {field.partition(".")[0]: value})))  # type: ignore[arg-type]
    assert [violation.field for violation in refusal.value.violations] == [field]


def test_the_settings_of_a_gateway_cannot_exceed_what_the_engine_takes() -> None:
    for field, most in (("max_count", limits.MAX_COUNT), ("max_steps", limits.MAX_STEPS)):
        assert GatewaySettings(**{field: most})
        with pytest.raises(ValueError, match=field):
            GatewaySettings(**{field: most + 1})


@pytest.mark.parametrize(
    ("files", "field"),
    [
        ({"/etc/passwd": b""}, "files"),
        ({"adapter_model.safetensors": bytes(limits.MAX_ENGINE_MESSAGE_BYTES + 1)}, "files"),
        ({}, "created_at"),
    ],
)
def test_the_engine_bounds_an_import(files: dict[str, bytes], field: str) -> None:
    asked = engine_pb2.PackAdapterRequest(files=files, created_at=math.inf if field == "created_at" else 1.0)
    with pytest.raises(InvalidRequest) as refusal:
        check_pack_request(asked)
    assert [violation.field for violation in refusal.value.violations] == [field]


def test_each_of_several_tokens_is_accepted() -> None:
    access = EngineAccess(lambda: "new old\n")
    for token in ("new", "old"):
        access.check([("x", "y"), ("authorization", f"Bearer {token}")])
    for metadata in (
        None,
        [],
        [("authorization", "new")],
        [("authorization", "Bearer new old")],
        [("a", "Bearer new")],
    ):
        with pytest.raises(Unauthenticated):
            access.check(metadata)
    EngineAccess(lambda: " ").check(None)


def test_a_replaced_file_of_tokens_is_taken_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("papa_serving.watched_file.EVERY", 0.0)
    file = tmp_path / "token"
    file.write_text("old")
    access = EngineAccess(current_secret(None, file))
    access.check([("authorization", "Bearer old")])
    file.write_text("new\nold")
    access.check([("authorization", "Bearer old")])
    file.write_text("new")
    access.check([("authorization", "Bearer new")])
    with pytest.raises(Unauthenticated):
        access.check([("authorization", "Bearer old")])
    file.write_text("")
    with pytest.raises(Unauthenticated):
        access.check(None)  # an emptied file opens the port to nobody


def test_errors_keep_their_type_on_the_wire() -> None:
    for error in (QueueFull("full", retry_after=1.5, metadata={"rows": "9"}), UserDeleted("gone")):
        sent = error_to_wire(error).error
        again = error_from_reason(sent.reason, sent.message, sent.retry_after_seconds or None, dict(sent.metadata))
        assert type(again) is type(error)
        assert (again.message, again.retry_after, again.metadata) == (error.message, error.retry_after, error.metadata)
