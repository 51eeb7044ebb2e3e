"""The same events sent in three ways; raw stubs, since the client's own work is not what is measured."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import AsyncIterator, Sequence

import grpc
from papa_serving.stubs.serving.v1 import feedback_pb2, feedback_pb2_grpc, types_pb2

USERS, ITEMS = 64, 16
CALLERS = 32
PER_BATCH = 1000
_NUMBERS = itertools.count()
_RUN = secrets.token_hex(4)


def item_id(user: int, item: int) -> str:
    """The id of an item that was stored beforehand."""
    return f"item-{user}-{item}"


def events(count: int) -> list[feedback_pb2.FeedbackEvent]:
    """New events of all users in turn, each about a stored item."""
    numbers = itertools.islice(_NUMBERS, count)
    return [
        feedback_pb2.FeedbackEvent(
            event_id=f"{_RUN}-{number}",
            user=types_pb2.User(user=f"u{number % USERS}"),
            item_id=item_id(number % USERS, number // USERS % ITEMS),
            signal=feedback_pb2.SIGNAL_LIKE if number % 3 else feedback_pb2.SIGNAL_DISLIKE,
        )
        for number in numbers
    ]


class Sender:
    """One channel to one server."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.aio.insecure_channel(address)
        self._stub = feedback_pb2_grpc.FeedbackServiceStub(self._channel)

    async def close(self) -> None:
        """Ends the connection."""
        await self._channel.close(None)

    async def unary(self, each: Sequence[feedback_pb2.FeedbackEvent]) -> None:
        """One event a call, CALLERS calls under way."""
        await self._calls([feedback_pb2.SubmitFeedbackRequest(events=[event]) for event in each], CALLERS)

    async def batched(self, each: Sequence[feedback_pb2.FeedbackEvent]) -> None:
        """PER_BATCH events a call, two calls under way."""
        groups = [each[start : start + PER_BATCH] for start in range(0, len(each), PER_BATCH)]
        await self._calls([feedback_pb2.SubmitFeedbackRequest(events=group) for group in groups], 2)

    async def streamed(self, each: Sequence[feedback_pb2.FeedbackEvent]) -> None:
        """One event a message of one stream, written as fast as the server takes them."""

        async def requests() -> AsyncIterator[feedback_pb2.StreamFeedbackRequest]:
            for event in each:
                yield feedback_pb2.StreamFeedbackRequest(event=event)

        answered = 0
        async for response in self._stub.StreamFeedback(requests()):
            _accepted(response.outcome)
            answered += 1
        if answered != len(each):
            raise RuntimeError(f"{answered} of {len(each)} events were answered")

    async def _calls(self, requests: Sequence[feedback_pb2.SubmitFeedbackRequest], at_once: int) -> None:
        waiting = iter(requests)

        async def caller() -> None:
            for request in waiting:
                response = await self._stub.SubmitFeedback(request)
                for outcome in response.outcomes:
                    _accepted(outcome)

        await asyncio.gather(*(caller() for _ in range(at_once)))


def _accepted(outcome: feedback_pb2.FeedbackOutcome) -> None:
    if outcome.WhichOneof("outcome") != "ack":
        raise RuntimeError(f"an event was refused: {outcome}")
