"""Sends messages, and judges every answer: a message, or a typed error."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Any

import grpc
from google.protobuf import message_factory
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from papa_serving.stubs.serving.v1 import feedback_pb2

from tests.fuzz import messages
from tests.gateway.support.fake_engine import FakeEngine
from tests.gateway.support.methods import EVERY_METHOD, Method

IN_FLIGHT = 24
STREAMED = 400
"""Messages of one stream at most."""
PATIENCE = 60.0
SILENT = 0.01
"""Share of calls that send headers and nothing else, and are given up."""

Code = grpc.StatusCode
ALLOWED = {
    Code.INVALID_ARGUMENT, Code.NOT_FOUND, Code.FAILED_PRECONDITION, Code.RESOURCE_EXHAUSTED, Code.ABORTED,
}  # fmt: skip


@dataclass
class Tally:
    """The result. `findings` are the faults, each with the number of the call that reproduces it."""

    sent: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    methods: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        self.sent += other.sent
        self.answers += other.answers
        self.methods += other.methods
        self.findings += other.findings


class Driver:
    """Calls by number: all that one sends follows from (seed, number)."""

    def __init__(self, seed: str, address: str) -> None:
        self._seed, self._address = seed, address
        self.tally = Tally()

    async def run(self, wanted: int, progress: Callable[[int], None] = lambda sent: None) -> Tally:
        """Runs until so many messages are sent, or until a finding ends the run."""
        numbers = count()

        async def caller() -> None:
            while self.tally.sent < wanted and len(self.tally.findings) < 20:
                await self.call(channel, next(numbers))
                progress(self.tally.sent)

        async with grpc.aio.insecure_channel(self._address) as channel:
            await asyncio.gather(*(caller() for _ in range(IN_FLIGHT)))
        return self.tally

    async def once(self, number: int) -> Tally:
        """One call again."""
        async with grpc.aio.insecure_channel(self._address) as channel:
            await self.call(channel, number)
        return self.tally

    async def call(self, channel: grpc.aio.Channel, number: int) -> None:
        chance = Random(f"{self._seed}:{number}")
        method = EVERY_METHOD[number % len(EVERY_METHOD)]
        if chance.random() < SILENT:
            self.tally.answers[await _silence(channel, method)] += 1
            return
        sent = self._messages(method, chance)
        self.tally.sent += len(sent)
        self.tally.methods[method.short] += len(sent)
        try:
            async with asyncio.timeout(PATIENCE):
                found = await _answered(channel, method, sent, messages.metadata(chance))
        except grpc.aio.AioRpcError as failure:
            found = _judged(failure)
        except TimeoutError:
            found = "! no answer"
        self.tally.answers[found] += 1
        if found.startswith("!"):
            self.tally.findings.append(f"call {number}, {method.name}: {found}")

    def _messages(self, method: Method, chance: Random) -> list[bytes]:
        if not method.descriptor.client_streaming:
            return [messages.message(method, chance)]
        made = [messages.message(method, chance) for _ in range(chance.randrange(1, STREAMED))]
        # The first message that is none ends a stream: it goes last, where it costs the others nothing.
        readable = [messages.readable(method, data) for data in made]
        good = [data for data, fine in zip(made, readable, strict=True) if fine]
        return good + [data for data, fine in zip(made, readable, strict=True) if not fine][:1]


async def _silence(channel: grpc.aio.Channel, method: Method) -> str:
    call = channel.stream_stream(method.path)()
    await asyncio.sleep(0.01)
    call.cancel()
    return "given up without a message"


async def _answered(
    channel: grpc.aio.Channel, method: Method, sent: list[bytes], metadata: tuple[tuple[str, str], ...]
) -> str:
    call = method.call(channel, sent, metadata=metadata)
    try:
        if method.descriptor.client_streaming:
            unreadable = not messages.readable(method, sent[-1])
            return await _outcomes(call, method, len(sent) - unreadable)
        if not method.descriptor.server_streaming:
            await call
        elif method.name == "WatchUser":
            await anext(aiter(call))  # it would go on for ever
        else:
            async for _ in call:
                pass
        return "OK"
    finally:
        call.cancel()


async def _outcomes(call: grpc.aio.StreamStreamCall, method: Method, expected: int) -> str:
    """One outcome for each message that is one, also where a last one ends the stream."""
    answers, end = 0, "OK"
    try:
        async for data in call:
            answers += 1
            error = _error_in(message_factory.GetMessageClass(method.descriptor.output_type).FromString(data))
            if error.code in (2, 13):
                return f"! outcome {error.reason}: {error.message}"
    except grpc.aio.AioRpcError as failure:
        end = _judged(failure)
    return end if answers == expected or end.startswith("!") else f"! {answers} outcomes of {expected}"


def _error_in(answer: Any) -> Any:
    """The error in an answer about one event, or about one item."""
    return answer.outcome.error if isinstance(answer, feedback_pb2.StreamFeedbackResponse) else answer.error


def _judged(failure: grpc.aio.AioRpcError) -> str:
    """The code and reason of an answer; a fault begins with "!"."""
    code, details = failure.code(), failure.details()
    if code not in ALLOWED:
        return f"! {code.name}: {details}"
    status = rpc_status.from_call(failure)
    info = error_details_pb2.ErrorInfo()
    if status is None or not any(detail.Unpack(info) for detail in status.details):
        # What is larger than a message may be never reaches the gateway's own code.
        return (
            "RESOURCE_EXHAUSTED" if code is Code.RESOURCE_EXHAUSTED else f"! {code.name} without ErrorInfo: {details}"
        )
    return f"{code.name} {info.reason}"


async def engine() -> FakeEngine:
    """Something for the gateway to pass generations on to."""
    fake = FakeEngine()
    await fake.start()
    return fake
