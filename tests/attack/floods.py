"""Callers who take much and give nothing: silent calls, watches, streams that nobody reads, half-open connections."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from papa_serving.stubs.serving.v1 import feedback_pb2, generation_pb2

from tests.attack.pictures import png
from tests.attack.result import Attack, Found, Target, answer_to, catalogue, connected, counted, refused_with, user

GENERATE = "/papa.serving.v1.GenerationService/Generate"
STREAM_FEEDBACK = "/papa.serving.v1.FeedbackService/StreamFeedback"
WATCH = "/grpc.health.v1.Health/Watch"
SECONDS = 6.0
"""How long a flood lasts once it is there, at scale 1."""


async def held_open(
    target: Target, path: str, count: int, seconds: float, message: bytes = b"", who: str = ""
) -> Found:
    """Opens `count` calls over eight connections, leaves them open, and asks for health on both ports meanwhile."""
    metadata = target.metadata(who) if who else None
    async with contextlib.AsyncExitStack() as stack:
        channels = [await stack.enter_async_context(connected(target.address)) for _ in range(8)]
        calls = [
            channel.stream_stream(path)(metadata=metadata)
            for channel, _ in zip(itertools.cycle(channels), range(count))
        ]
        writes = [asyncio.ensure_future(_written(call, message)) for call in calls if message]
        health = [await health_of(target.address), await health_of(target.health_address)]
        await asyncio.sleep(seconds)
        health += [await health_of(target.address), await health_of(target.health_address)]
        still = sum(not call.done() for call in calls)
        for write in writes:
            write.cancel()
        for call in calls:
            call.cancel()
    return Found(
        health == ["OK"] * 4, f"{count} opened, {still} still open after {seconds:.0f} s; health: {counted(health)}"
    )


async def _written(call: Any, message: bytes) -> None:
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        await call.write(message)


async def health_of(address: str) -> str:
    async with connected(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        return await answer_to(stub.Check(health_pb2.HealthCheckRequest(), timeout=10.0, wait_for_ready=True))


async def watches(target: Target, scale: float) -> Found:
    message = health_pb2.HealthCheckRequest().SerializeToString()
    return await held_open(target, WATCH, 1_400, SECONDS * scale, message or b"\x0a\x00")


async def headers_only(target: Target, scale: float) -> Found:
    return await held_open(target, GENERATE, 1_400, SECONDS * scale)


async def silent_streams(target: Target, scale: float) -> Found:
    return await held_open(target, STREAM_FEEDBACK, 1_400, SECONDS * scale, who="mallory")


async def unread_streams(target: Target, scale: float) -> Found:
    """Many clients ask for a stream of large grids and never read it."""
    request = generation_pb2.StreamGenerateRequest(user=user(), count=64).SerializeToString()
    path = "/papa.serving.v1.GenerationService/StreamGenerate"
    return await held_open(target, path, 200, SECONDS * scale, request, "mallory")


async def half_open(target: Target, scale: float) -> Found:
    """Connections that begin a handshake, of HTTP/2 or of TLS, and never end it."""
    host, _, port = target.address.rpartition(":")
    beginnings = (b"", b"PRI * HTTP/2.0\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(24))
    opened: list[asyncio.StreamWriter] = []
    try:
        for number in range(600):
            _, writer = await asyncio.open_connection(host, int(port))
            opened.append(writer)
            writer.write(beginnings[number % len(beginnings)])
        health = [await health_of(target.address), await health_of(target.health_address)]
        await asyncio.sleep(SECONDS * scale)
        health.append(await health_of(target.address))
    finally:
        for writer in opened:
            writer.transport.abort()
    return Found(health == ["OK"] * 3, f"{len(opened)} connections left in the handshake; health: {counted(health)}")


async def events_without_end(target: Target, scale: float) -> Found:
    """One user likes until the backlog is full; another user of the same tenant still may."""
    taken = refused = 0
    async with connected(target.address) as channel:
        submit = channel.unary_unary(
            "/papa.serving.v1.FeedbackService/SubmitFeedback",
            request_serializer=feedback_pb2.SubmitFeedbackRequest.SerializeToString,
            response_deserializer=feedback_pb2.SubmitFeedbackResponse.FromString,
        )

        async def likes(name: str, first: int, count: int, who: str) -> feedback_pb2.SubmitFeedbackResponse:
            events = [
                feedback_pb2.FeedbackEvent(
                    event_id=f"{name}-{first + number}",
                    user=user(name),
                    image=catalogue(png(4)),
                    signal=feedback_pb2.SIGNAL_LIKE,
                )
                for number in range(count)
            ]
            return await submit(
                feedback_pb2.SubmitFeedbackRequest(events=events), metadata=target.metadata(who), timeout=60
            )

        for first in itertools.count(step=250):
            try:
                outcomes = (await likes("mallory", first, 250, "mallory")).outcomes
                refused += sum(outcome.HasField("error") for outcome in outcomes)
                taken += sum(outcome.HasField("ack") for outcome in outcomes)
            except grpc.aio.AioRpcError:
                refused += 250
            if refused or taken > 12_000:
                break
        said = "taken"
        try:
            (outcome,) = (await likes("alice", 0, 1, "alice")).outcomes
            said = outcome.error.reason or said
        except grpc.aio.AioRpcError as failure:
            said = refused_with(failure)
    return Found(
        bool(refused) and said == "taken", f"{taken} of one user taken, then refused; the next user's is {said}"
    )


ATTACKS = (
    Attack("health watched by 1,400 streams, no token", watches),
    Attack("1,400 calls of headers alone, no token", headers_only),
    Attack("1,400 silent feedback streams of a user", silent_streams),
    Attack("200 streams of pictures never read", unread_streams),
    Attack("600 handshakes never ended", half_open),
)

LAST = (Attack("one user's likes without end", events_without_end),)
"""It leaves the partition's backlog full."""
