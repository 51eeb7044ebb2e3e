"""The bytes of requests that are handled at once, per owner and in all."""

from __future__ import annotations

import asyncio
import gc
from contextlib import ExitStack

import grpc
import pytest
from papa_serving.contracts.errors import Overloaded, StorageUnavailable
from papa_serving.gateway.auth.identity import ANYBODY, Identity
from papa_serving.gateway.rpc.admission import HeldBytes
from papa_serving.gateway.rpc.edge import Unparsed
from papa_serving.stubs.serving.v1 import feedback_pb2, types_pb2, user_pb2

from tests.gateway.support.service import Service, eventually, refusal

ALICE, BOB = Identity("shop", True, "alice"), Identity("shop", True, "bob")
HERE, THERE = ("connection", "a"), ("connection", "b")
UNKNOWN_FIELD = b"\xfa\x7f"
"""Field 2047, of bytes: what the gateway's own version of a message does not know travels with it all the same."""


def test_a_user_holds_no_more_than_is_left_for_others() -> None:
    held = HeldBytes(1_000)
    with ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(held.held(HERE, ALICE, 100))
        with pytest.raises(Overloaded, match="this user has 500 of them"), held.held(THERE, ALICE, 100):
            pass
        stack.enter_context(held.held(HERE, BOB, 400))
    with held.held(HERE, ALICE, 1_000):
        pass


def test_a_connection_of_nobody_leaves_an_eighth() -> None:
    held = HeldBytes(800)
    with ExitStack() as stack, pytest.raises(Overloaded):
        for number in range(8):
            assert number < 8
            stack.enter_context(held.held(HERE, ANYBODY, 100))
            if number == 6:
                stack.enter_context(held.held(THERE, ANYBODY, 100))


def test_more_than_all_is_refused_to_everybody_and_nothing_is_kept_of_it() -> None:
    held = HeldBytes(100)
    for _ in range(3):
        with pytest.raises(Overloaded), held.held(HERE, ALICE, 101):
            pass
        with pytest.raises(KeyError), held.held(HERE, ALICE, 60):
            raise KeyError
    with held.held(HERE, ALICE, 100):
        pass


def test_what_is_released_within_the_block_is_released_once() -> None:
    held = HeldBytes(100)
    with held.held(HERE, ALICE, 100) as release:
        release()
        with held.held(HERE, ALICE, 100):
            release()
            with pytest.raises(Overloaded), held.held(HERE, BOB, 1):
                pass
    with held.held(HERE, ALICE, 100):
        pass


async def test_a_stream_holds_its_first_message_only_until_it_was_consumed(unstarted: Service) -> None:
    await unstarted.start(max_message_bytes=2**20, max_held_bytes=2**20)
    event = feedback_pb2.FeedbackEvent(event_id="e", user=types_pb2.User(user="alice"), item_id="i")
    body = feedback_pb2.StreamFeedbackRequest(event=event).SerializeToString()
    body += UNKNOWN_FIELD + b"\xa0\xf7\x36" + bytes(900_000)
    streams = [unstarted.channel.stream_stream("/papa.serving.v1.FeedbackService/StreamFeedback")() for _ in range(4)]
    for stream in streams:
        await stream.write(body)
        assert await stream.read() is not grpc.aio.EOF
    for stream in streams:
        await stream.done_writing()
        assert await stream.read() is grpc.aio.EOF


async def test_large_requests_that_take_long_are_bounded(unstarted: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    await unstarted.start(max_message_bytes=2**20, max_held_bytes=2**20)
    go_on, waiting, get = asyncio.Event(), [], unstarted.users.get

    async def slow(user: object) -> object:
        waiting.append(user)
        await go_on.wait()
        return await get(user)

    monkeypatch.setattr(unstarted.users, "get", slow)
    ballast = bytes(900_000)
    body = user_pb2.GetUserRequest(user=types_pb2.User(user="alice")).SerializeToString()
    body += UNKNOWN_FIELD + b"\xa0\xf7\x36" + ballast
    ask = unstarted.channel.unary_unary("/papa.serving.v1.UserService/GetUser")
    calls = [asyncio.ensure_future(ask(body)) for _ in range(2)]
    await eventually(lambda: len(waiting) == 2)
    refused = await refusal(ask(body))
    assert (refused.code, refused.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
    assert refused.retry_after is not None
    assert await unstarted.serving("")
    go_on.set()
    await asyncio.gather(*calls, ask(body))


async def test_nothing_of_a_failed_request_is_kept(unstarted: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even until Python next looks for cycles."""
    await unstarted.start()

    async def away(user: object) -> object:
        raise StorageUnavailable("no Redis") from ConnectionError("refused")

    monkeypatch.setattr(unstarted.users, "get", away)
    gc.collect()
    gc.disable()
    try:
        # Of this request: what else the process holds is not the gateway's.
        name = "a user of this test alone"
        refused = await refusal(unstarted.user.GetUser(user_pb2.GetUserRequest(user=types_pb2.User(user=name))))
        assert refused.reason == "STORAGE_UNAVAILABLE"
        await eventually(
            lambda: (
                not [
                    each
                    for each in gc.get_objects()
                    if type(each) is user_pb2.GetUserRequest and each.user.user == name
                ]
            )
        )
        assert not [each for each in gc.get_objects() if type(each) is Unparsed and name.encode() in each.data]
    finally:
        gc.enable()
