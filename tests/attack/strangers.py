"""What a stranger, or a neighbour with a token, tries beside the floods: frames, headers, ids and items of others."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import struct

import grpc
from google.protobuf import message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from papa_serving.stubs.serving.v1 import feedback_pb2, generation_pb2, user_pb2

from tests.attack.floods import health_of
from tests.attack.pictures import png
from tests.attack.result import (
    HIDDEN,
    OWN_CONNECTION,
    Attack,
    Found,
    Target,
    answer_to,
    catalogue,
    connected,
    counted,
    user,
)
from tests.gateway.support.methods import METHODS

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, HEADERS, RESET, PING, WINDOW_UPDATE, CONTINUATION = 4, 1, 3, 6, 8, 9


def frame(kind: int, payload: bytes = b"", stream: int = 0, flags: int = 0) -> bytes:
    """One frame of HTTP/2."""
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def literal(name: bytes, value: bytes) -> bytes:
    """A header field that no table remembers."""
    return bytes((0, len(name))) + name + bytes((len(value),)) + value


def headers_of(path: bytes) -> bytes:
    fields = {b":method": b"POST", b":scheme": b"http", b":path": path, b":authority": b"x", b"te": b"trailers"}
    return b"".join(literal(*each) for each in {**fields, b"content-type": b"application/grpc"}.items())


async def _raw(target: Target, frames: list[bytes]) -> str:
    """Sends the frames on a connection of its own, reads nothing of use, and tells how it ended."""
    host, _, port = target.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    draining = asyncio.create_task(_drained(reader))
    ended = "sent"
    try:
        async with asyncio.timeout(30):
            writer.write(PREFACE + frame(SETTINGS))
            for each in frames:
                writer.write(each)
                await writer.drain()
    except (ConnectionError, TimeoutError) as error:
        ended = f"cut ({type(error).__name__})"
    finally:
        draining.cancel()
        writer.transport.abort()
    return ended


async def _drained(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(ConnectionError):
        while await reader.read(2**16):
            pass


async def frames_without_sense(target: Target, scale: float) -> Found:
    """Streams opened and reset at once, and floods of settings, pings, continuations and odd windows."""
    count = max(200, int(10_000 * scale))
    opened = headers_of(b"/papa.serving.v1.UserService/GetUser")
    reset = [
        b"".join(
            frame(HEADERS, opened, stream, 4) + frame(RESET, struct.pack(">I", 8), stream)
            for stream in range(first, first + 200, 2)
        )
        for first in range(1, 2 * count, 200)
    ]
    floods = [
        reset,
        [frame(SETTINGS, struct.pack(">HI", 3, number % 100)) for number in range(count)],
        [frame(PING, bytes(8)) for _ in range(count)],
        [frame(HEADERS, opened, 1), *(frame(CONTINUATION, literal(b"x", b"y" * 100), 1) for _ in range(count))],
        [frame(WINDOW_UPDATE, struct.pack(">I", 2**31 - 1), 0) for _ in range(9)],
        [frame(HEADERS, b"\xff" * 4_000, 1, 5), frame(99, bytes(2**14 - 1), 7), os.urandom(2**16)],
    ]
    health = []
    ended = []
    for flood in floods:
        ended += await asyncio.gather(*(_raw(target, flood) for _ in range(2)))
        health.append(await health_of(target.address))
    return Found(set(health) == {"OK"}, f"{count} of each: {counted(ended)}; health: {counted(health)}")


async def large_headers(target: Target, scale: float) -> Found:
    """Metadata of 9 KB, which gRPC still takes now and then, to 1 MB, with and without a token."""
    answers: dict[tuple[int, int], str] = {}
    request = user_pb2.GetUserRequest(user=user("alice")).SerializeToString()
    for size, who in itertools.product((9_000, 20_000, 2**20), ((), target.metadata("alice"))):
        options = (*OWN_CONNECTION, ("grpc.max_metadata_size", 2**22))
        async with grpc.aio.insecure_channel(target.address, options) as channel:
            call = channel.unary_unary("/papa.serving.v1.UserService/GetUser")
            metadata = (*who, ("x-more", "x" * size))
            answers[size, len(who)] = await answer_to(call(request, metadata=metadata, timeout=20))
    health = await health_of(target.address)
    refused = {answer.split(" ")[0] for (size, _), answer in answers.items() if size > 16_000}
    held = health == "OK" and refused == {"RESOURCE_EXHAUSTED"} and answers[9_000, 0] != "OK"
    return Found(held, f"{counted(list(answers.values()))}; health: {health}")


OTHERS = (("other", "other", "carol"), ("mallory", "shop", "mallory"), ("mallory", "shop", "alice"))


async def items_of_others(target: Target, scale: float) -> Found:
    """Likes and takes back what another tenant, and another user of the same tenant, made and said."""
    answers: dict[str, str] = {}
    async with connected(target.address) as channel:
        generate = channel.unary_unary("/papa.serving.v1.GenerationService/Generate")
        request = generation_pb2.GenerateRequest(user=user("alice"), count=1).SerializeToString()
        made = await generate(request, metadata=target.metadata("alice"), timeout=20)
        item = generation_pb2.GenerateResponse.FromString(made).items[0].item_id
        mine = feedback_pb2.FeedbackEvent(event_id="mine", user=user("alice"), image=catalogue(png(4)), grade=1.0)
        assert await _submitted(channel, target.metadata("alice"), mine) == "OK"
        for who, tenant, name in OTHERS:
            whom = user(name, tenant)
            for what, event in {
                "item": feedback_pb2.FeedbackEvent(event_id="e", user=whom, item_id=item, grade=1.0),
                "event": feedback_pb2.FeedbackEvent(event_id="f", user=whom, cancels=mine.event_id),
            }.items():
                answers[f"{what} as {who} for {tenant}/{name}"] = await _submitted(channel, target.metadata(who), event)
    fine = {"NOT_FOUND ITEM_NOT_FOUND", "NOT_FOUND EVENT_NOT_FOUND", "PERMISSION_DENIED FORBIDDEN"}
    return Found(set(answers.values()) <= fine, counted(list(answers.values())))


async def _submitted(
    channel: grpc.aio.Channel, metadata: tuple[tuple[str, str], ...], event: feedback_pb2.FeedbackEvent
) -> str:
    request = feedback_pb2.SubmitFeedbackRequest(events=[event]).SerializeToString()
    call = channel.unary_unary("/papa.serving.v1.FeedbackService/SubmitFeedback")
    return await answer_to(call(request, metadata=metadata, timeout=20))


LIKE_KEYS = (
    "keyed:items", "{p00}:user:keyed", "keyed}:{p01", "*", "../keyed", "keyed\\", "keyed?", "KEYED", "keyed ",
    "%6beyed",
)  # fmt: skip


async def ids_like_keys(target: Target, scale: float) -> Found:
    """Users with ids that look like keys of Redis, patterns or paths: deleting them touches nobody else."""
    async with connected(target.address) as channel:
        mine = feedback_pb2.FeedbackEvent(event_id="k", user=user("keyed"), image=catalogue(png(4)), grade=1.0)
        first = await _submitted(channel, target.metadata("shop"), mine)
        answers = []
        for name in LIKE_KEYS:
            request = user_pb2.DeleteUserRequest(user=user(name)).SerializeToString()
            call = channel.unary_unary("/papa.serving.v1.UserService/DeleteUser")
            answers.append(await answer_to(call(request, metadata=target.metadata("shop"), timeout=20)))
        again = await channel.unary_unary("/papa.serving.v1.UserService/GetUser")(
            user_pb2.GetUserRequest(user=user("keyed")).SerializeToString(),
            metadata=target.metadata("shop"),
            timeout=20,
        )
    likes = user_pb2.GetUserResponse.FromString(again).state.likes
    return Found(
        first == "OK" and likes == 1 and set(answers) <= {"OK", "INVALID_ARGUMENT INVALID_REQUEST"},
        f"{counted(answers)}; the user beside them has {likes} like",
    )


async def what_is_open(target: Target, scale: float) -> Found:
    """Every method without a token and with none that counts, reflection, and health of services by odd names."""
    answers = []
    async with connected(target.address) as channel:
        for method in METHODS:
            for shown in ((), (("authorization", "Bearer "),), (("authorization", "Basic YTpi"),)):
                message = method.good(user("alice")).SerializeToString()
                while (
                    answer := await answer_to(method.call(channel, [message], metadata=shown, timeout=20))
                ) == HIDDEN:
                    continue
                answers.append(answer)
        listing = reflection_pb2.ServerReflectionRequest(list_services="")
        told = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([listing]), timeout=20)
        reflected = await answer_to(told)
        stub = health_pb2_grpc.HealthStub(channel)
        odd = [
            await answer_to(stub.Check(health_pb2.HealthCheckRequest(service=name))) for name in ("x" * 10_000, "\x1b")
        ]
    held = set(answers) == {"UNAUTHENTICATED UNAUTHENTICATED"} and reflected == "UNIMPLEMENTED"
    return Found(
        held and {each.split(" ")[0] for each in odd} == {"NOT_FOUND"},
        f"{counted(answers)}; reflection: {reflected}; health of odd names: {counted(odd)}",
    )


async def names_in_metrics(target: Target, scale: float) -> Found:
    """Ids, methods and services of one's own make no series, and no line of the log."""
    marks = [f"mark{number}" for number in range(max(5, int(50 * scale)))]
    async with connected(target.address) as channel:
        for mark in marks:
            request = user_pb2.GetUserRequest(user=user(f"{mark}\n")).SerializeToString()
            for path in ("/papa.serving.v1.UserService/GetUser", f"/papa.serving.v1.{mark}/X", f"/{mark}/X"):
                call = channel.unary_unary(path)(request, metadata=(*target.metadata("shop"), ("x-request-id", mark)))
                await answer_to(call)
    metrics = await asyncio.to_thread(target.scraped)
    log = target.log()
    forged = [line for line in log.splitlines() if not line.startswith("{")]
    named = [mark for mark in marks if mark in metrics]
    return Found(
        not named and not forged, f"{len(named)} of {len(marks)} names in the metrics, {len(forged)} odd log lines"
    )


async def large_requests(target: Target, scale: float) -> Found:
    """Requests of 7 MB by the hundred at once, of one user."""
    count = max(20, int(150 * scale))
    noise = os.urandom(900_000)
    events = [
        feedback_pb2.FeedbackEvent(event_id=f"large-{number}", user=user(), image=catalogue(noise), grade=1.0)
        for number in range(8)
    ]
    data = feedback_pb2.SubmitFeedbackRequest(events=events).SerializeToString()
    async with connected(target.address) as channel:
        call = channel.unary_unary("/papa.serving.v1.FeedbackService/SubmitFeedback")
        answers = await asyncio.gather(
            *(answer_to(call(data, metadata=target.metadata("mallory"), timeout=60)) for _ in range(count))
        )
    fine = {"INVALID_ARGUMENT INVALID_REQUEST", "RESOURCE_EXHAUSTED OVERLOADED", "RESOURCE_EXHAUSTED RATE_LIMITED"}
    return Found(set(answers) <= fine, f"{count} at once: {counted(list(answers))}")


def largest(method_name: str) -> bytes:
    """A message of every repeated field, thousands of times."""
    (method,) = [each for each in METHODS if each.name == method_name]
    message = message_factory.GetMessageClass(method.descriptor.input_type)()
    for field in method.descriptor.input_type.fields:
        if field.is_repeated and field.message_type is not None:
            for _ in range(20_000):
                getattr(message, field.name).add()
    return bytes(message.SerializeToString())


async def many_parts(target: Target, scale: float) -> Found:
    """Requests of 20,000 events, or files, of nothing."""
    answers = []
    async with connected(target.address) as channel:
        for name in ("SubmitFeedback", "ImportAdapter"):
            (method,) = [each for each in METHODS if each.name == name]
            call = channel.unary_unary(method.path)
            answers.append(await answer_to(call(largest(name), metadata=target.metadata("shop"), timeout=20)))
    return Found(set(answers) == {"INVALID_ARGUMENT INVALID_REQUEST"}, counted(answers))


ATTACKS = (
    Attack("frames of HTTP/2 that make no sense", frames_without_sense),
    Attack("metadata of 9 KB to 1 MB", large_headers),
    Attack("items and events of others", items_of_others),
    Attack("ids like keys, patterns and paths", ids_like_keys),
    Attack("methods, reflection and health without a token", what_is_open),
    Attack("names of strangers in metrics and logs", names_in_metrics),
    Attack("requests of 7 MB at once", large_requests),
    Attack("requests of 20,000 empty parts", many_parts),
)
