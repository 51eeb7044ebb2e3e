"""Decoding in processes that can be killed, shared fairly among users."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import AsyncIterator

import psutil
import pytest
from papa_serving.contracts.errors import DeadlineExceeded, Overloaded
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.samples import unpack_prompted
from papa_serving.gateway.conversion import picture_reader
from papa_serving.gateway.conversion.picture_reader import FairPictures, PictureReader, _Picture
from papa_serving.gateway.conversion.pictures import BadPicture, decode
from PIL import Image

SHAPE, LIMIT = (1, 8, 8), 2**22
ANN, BOB, MALLORY = (UserKey("shop", name) for name in ("ann", "bob", "mallory"))
PATIENCE = 60.0
CPU_SECONDS = 0.06


def png(side: int) -> bytes:
    data = io.BytesIO()
    Image.new("RGBA", (side, side), (10, 20, 30, 99)).save(data, "PNG")
    return data.getvalue()


SMALL, HOSTILE = png(4), png(2048)
"""The hostile one takes several times CPU_SECONDS, the small one a hundredth."""


@pytest.fixture
async def reader() -> AsyncIterator[PictureReader]:
    reader = PictureReader(LIMIT, cpu_seconds=CPU_SECONDS)
    async with asyncio.timeout(PATIENCE):
        yield reader
        await reader.close()
    assert not decoders()


def decoders() -> list[psutil.Process]:
    return [each for each in psutil.Process().children() if "decoder_process" in " ".join(each.cmdline())]


async def test_a_process_decodes_as_the_function_does(reader: PictureReader) -> None:
    sample = await reader.read(ANN, SMALL, SHAPE, "a red bag – ☂")
    assert sample == decode(SMALL, SHAPE, LIMIT, "a red bag – ☂")
    assert unpack_prompted(sample)[1] == "a red bag – ☂"
    with pytest.raises(BadPicture, match="PNG, JPEG or WebP"):
        await reader.read(ANN, b"GIF89a", SHAPE)
    with pytest.raises(BadPicture, match="at most 9 pixels"):
        small = PictureReader(9)
        try:
            await small.read(ANN, SMALL, SHAPE)
        finally:
            await small.close()


async def test_the_largest_picture_fits_into_the_memory_of_a_process() -> None:
    reader = PictureReader(LIMIT, cpu_seconds=PATIENCE)
    for mode in ("RGBA", "I;16", "P"):
        data = io.BytesIO()
        Image.new(mode, (2048, 2048)).save(data, "PNG", transparency=0 if mode == "P" else None)
        assert await reader.read(ANN, data.getvalue(), SHAPE)
    await reader.close()


async def test_a_picture_that_takes_too_long_ends_its_process_alone(reader: PictureReader) -> None:
    await reader.read(ANN, SMALL, SHAPE)
    with pytest.raises(BadPicture, match="cannot be decoded"):
        await reader.read(MALLORY, HOSTILE, SHAPE)
    assert await reader.read(MALLORY, SMALL, SHAPE), "and another process takes its place"


async def test_a_killed_process_is_replaced(reader: PictureReader) -> None:
    await reader.read(ANN, SMALL, SHAPE)
    for process in decoders():
        process.kill()
    assert await asyncio.gather(*(reader.read(ANN, SMALL, SHAPE) for _ in range(4))), "no picture is blamed for it"


async def test_a_small_picture_is_not_held_up_by_hostile_ones(reader: PictureReader) -> None:
    hostile = [asyncio.create_task(reader.read(MALLORY, HOSTILE, SHAPE)) for _ in range(6)]
    await asyncio.sleep(0)
    assert await reader.read(ANN, SMALL, SHAPE)
    assert sum(each.done() for each in hostile) <= 2, "most of them wait"
    outcomes = await asyncio.gather(*hostile, return_exceptions=True)
    assert all(isinstance(each, BadPicture) for each in outcomes)


async def test_a_caller_waits_no_longer_than_its_deadline(reader: PictureReader) -> None:
    with pytest.raises(DeadlineExceeded):
        await reader.read(ANN, SMALL, SHAPE, deadline=time.monotonic() - 1)
    assert await reader.read(ANN, SMALL, SHAPE, deadline=time.monotonic() + PATIENCE)


async def test_what_waits_is_bounded_and_one_user_leaves_room(
    reader: PictureReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(picture_reader, "QUEUED_BYTES", 10 * len(SMALL))
    many = [asyncio.create_task(reader.read(MALLORY, SMALL, SHAPE)) for _ in range(20)]
    await asyncio.sleep(0)
    assert await reader.read(ANN, SMALL, SHAPE)
    outcomes = await asyncio.gather(*many, return_exceptions=True)
    refused = [each for each in outcomes if isinstance(each, Overloaded)]
    assert len(refused) > 10
    assert all(each.retry_after for each in refused)
    assert await reader.read(MALLORY, SMALL, SHAPE), "all of it has been given back"


async def test_a_decoder_that_does_not_start_says_so(
    reader: PictureReader, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr("sys.executable", "/bin/false")
        with pytest.raises(Overloaded):
            await reader.read(ANN, SMALL, SHAPE)
    assert "does not start" in caplog.text
    assert await reader.read(ANN, SMALL, SHAPE)


async def test_no_secret_is_in_the_environment_of_a_decoder(
    reader: PictureReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAPA_REDIS__PASSWORD", "canary")
    await reader.read(ANN, SMALL, SHAPE)
    assert all("canary" not in each.environ().values() for each in decoders())


async def test_the_next_picture_is_of_whoever_has_used_least() -> None:
    pictures = FairPictures()
    for user in (MALLORY, MALLORY, MALLORY, ANN, ANN):
        pictures.push(_Picture(user, b""))
    order = []
    while (picture := pictures.pop(most=1)) is not None:
        order.append(picture.user)
        pictures.done(picture.user, 1.0 if picture.user == MALLORY else 0.4)
    assert order == [MALLORY, ANN, ANN, MALLORY, MALLORY]


async def test_nobody_saves_up_credit_while_away() -> None:
    pictures = FairPictures()
    for _ in range(6):
        pictures.push(_Picture(MALLORY, b""))
    for _ in range(3):
        assert pictures.pop(most=1) is not None
        pictures.done(MALLORY, 1.0)
    for _ in range(6):
        pictures.push(_Picture(ANN, b""))
    order = []
    while (picture := pictures.pop(most=1)) is not None:
        order.append(picture.user)
        pictures.done(picture.user, 1.0)
    assert [order[:6].count(user) for user in (ANN, MALLORY)] == [3, 3]


async def test_many_users_of_one_tenant_get_no_more_than_the_one_of_another() -> None:
    pictures = FairPictures()
    for number in range(8):
        pictures.push(_Picture(UserKey("crowd", str(number)), b""))
    for _ in range(4):
        pictures.push(_Picture(ANN, b""))
    order = []
    while (picture := pictures.pop(most=1)) is not None:
        order.append(picture.user.tenant)
        pictures.done(picture.user, 1.0)
    assert order[:8].count("shop") == 4
