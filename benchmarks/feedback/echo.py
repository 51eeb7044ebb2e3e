"""A bare grpc.aio server with FeedbackService's messages, which acknowledges everything and keeps nothing."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc
from papa_serving.stubs.serving.v1 import feedback_pb2, feedback_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]


def _outcome(event: feedback_pb2.FeedbackEvent) -> feedback_pb2.FeedbackOutcome:
    return feedback_pb2.FeedbackOutcome(event_id=event.event_id, ack=feedback_pb2.FeedbackAck(sequence=1))


class Echo(feedback_pb2_grpc.FeedbackServiceServicer):
    """The least that answers such a call."""

    async def SubmitFeedback(  # noqa: N802 - the proto names it
        self, request: feedback_pb2.SubmitFeedbackRequest, context: Context
    ) -> feedback_pb2.SubmitFeedbackResponse:
        return feedback_pb2.SubmitFeedbackResponse(outcomes=map(_outcome, request.events))

    async def StreamFeedback(  # noqa: N802
        self, request_iterator: AsyncIterator[feedback_pb2.StreamFeedbackRequest], context: Context
    ) -> AsyncIterator[feedback_pb2.StreamFeedbackResponse]:
        async for request in request_iterator:
            yield feedback_pb2.StreamFeedbackResponse(outcome=_outcome(request.event))


async def serve() -> None:
    """Prints its address, then serves until standard input ends."""
    server = grpc.aio.server()
    feedback_pb2_grpc.add_FeedbackServiceServicer_to_server(Echo(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(None)


if __name__ == "__main__":
    asyncio.run(serve())
