"""The gateway's memory under a caller who sends without end while storage stands still."""

from __future__ import annotations

import asyncio
import io
import os
import signal
from pathlib import Path

import grpc
import numpy as np
import psutil
from papa_serving.local.redis_process import RedisProcess
from papa_serving.stubs.serving.v1 import feedback_pb2, feedback_pb2_grpc, types_pb2, user_pb2
from PIL import Image

from tests.fuzz.target import PARTITIONS, announce
from tests.gateway.support.process import Process

STREAMS, EVENTS = 3, 400
GROWTH = STREAMS * 32 * 2**20
"""Bytes by which it may grow: per stream a group that is being appended, the next one, and the windows of HTTP/2."""


def picture() -> bytes:
    """About 300 kB that do not compress."""
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (320, 320, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "PNG")
    return buffer.getvalue()


def event(name: str, data: bytes) -> feedback_pb2.StreamFeedbackRequest:
    image, signal_ = feedback_pb2.CatalogueImage(data=data), feedback_pb2.SIGNAL_LIKE
    user = types_pb2.User(user="flood")
    return feedback_pb2.StreamFeedbackRequest(
        event=feedback_pb2.FeedbackEvent(event_id=name, user=user, image=image, signal=signal_)
    )


async def flood(address: str, stream: int, data: bytes) -> int:
    """How many events went out before the gateway made the sender wait."""
    async with grpc.aio.insecure_channel(address) as channel:
        call = feedback_pb2_grpc.FeedbackServiceStub(channel).StreamFeedback()
        for number in range(EVENTS):
            try:
                async with asyncio.timeout(2):
                    await call.write(event(f"{stream}-{number}", data))
            except (TimeoutError, grpc.aio.AioRpcError):
                break
        else:
            number = EVENTS
        await asyncio.sleep(1)
        call.cancel()
        return number


async def test_memory_is_bounded_while_storage_stands_still(tmp_path: Path) -> None:
    data = picture()
    assert STREAMS * EVENTS * len(data) > 3 * GROWTH
    with RedisProcess(tmp_path / "redis") as redis:
        await announce(redis.url)
        environment = {"PAPA_REDIS__URL": redis.url, "PAPA_FEEDBACK__PARTITIONS": str(PARTITIONS)}
        async with Process(tmp_path, **environment) as process:
            address = (await process.ready())["grpc"]
            async with grpc.aio.insecure_channel(address) as channel:
                call = feedback_pb2_grpc.FeedbackServiceStub(channel).StreamFeedback()
                await call.write(event("warm", data))
                answer = await call.read()
                assert isinstance(answer, feedback_pb2.StreamFeedbackResponse)
                assert answer.outcome.HasField("ack")
                call.cancel()
            seen = psutil.Process(process.process.pid)
            before = highest = seen.memory_info().rss
            os.kill(redis.pid, signal.SIGSTOP)
            try:
                floods = asyncio.gather(*(flood(address, stream, data) for stream in range(STREAMS)))
                while not floods.done():
                    highest = max(highest, seen.memory_info().rss)
                    await asyncio.sleep(0.05)
                sent = await floods
            finally:
                os.kill(redis.pid, signal.SIGCONT)
            assert highest - before < GROWTH, f"{(highest - before) >> 20} MiB more, after {sent} events"
            assert max(sent) < EVENTS, "the senders were made to wait"


BALLAST, TOGETHER = 7 * 2**20, 60
UNKNOWN_FIELD = b"\xfa\x7f\x80\x80\xc0\x03" + bytes(BALLAST)
"""Field 2047, of bytes: a message that is as large as that and means the same without it."""


async def test_large_messages_that_arrive_together_are_read_a_few_at_a_time(tmp_path: Path) -> None:
    """What waits for its turn waits with the caller."""
    body = user_pb2.GetUserRequest(user=types_pb2.User(user="flood")).SerializeToString() + UNKNOWN_FIELD
    environment = {"PAPA_GATEWAY__MAX_HELD_BYTES": str(2 * 8 * 2**20)}
    async with Process(tmp_path, **environment) as process:
        address = (await process.ready())["grpc"]
        seen = psutil.Process(process.process.pid)
        async with grpc.aio.insecure_channel(address) as channel:
            ask = channel.unary_unary("/papa.serving.v1.UserService/GetUser")
            before = highest = seen.memory_info().rss
            calls = asyncio.gather(*(ask(body, timeout=60) for _ in range(TOGETHER)), return_exceptions=True)
            while not calls.done():
                highest = max(highest, seen.memory_info().rss)
                await asyncio.sleep(0.01)
            answers = await calls
    codes = {answer.code() for answer in answers if isinstance(answer, grpc.aio.AioRpcError)}
    assert codes <= {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED}, "no Redis is there; or too much"
    assert len(answers) == TOGETHER
    assert highest - before < TOGETHER * BALLAST * 0.7, f"{(highest - before) >> 20} MiB more"
