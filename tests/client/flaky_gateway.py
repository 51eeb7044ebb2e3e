"""The three services, failing as a test tells them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
from grpc_status import rpc_status
from papa_serving.contracts.errors import PapaError
from papa_serving.gateway.rpc.status import rich_status
from papa_serving.stubs.serving.v1 import (
    feedback_pb2,
    feedback_pb2_grpc,
    generation_pb2,
    generation_pb2_grpc,
    user_pb2,
    user_pb2_grpc,
)

Context = grpc.aio.ServicerContext[Any, Any]
Failure = PapaError | grpc.StatusCode | None


class FlakyGateway(
    feedback_pb2_grpc.FeedbackServiceServicer,
    user_pb2_grpc.UserServiceServicer,
    generation_pb2_grpc.GenerationServiceServicer,
):
    """Takes the next of `failures` at each call and, None or none left, succeeds."""

    def __init__(self) -> None:
        self.failures: list[Failure] = []
        self.calls: list[Any] = []
        self.metadata: list[dict[str, str]] = []
        self.cut_after: list[int] = []
        self.cut_with = grpc.StatusCode.UNAVAILABLE
        self.time_left: list[float | None] = []
        self.received: list[str] = []
        self.applied: list[str] = []
        self.address = ""
        self.hold: asyncio.Event | None = None
        self._server: grpc.aio.Server | None = None

    async def start(self, add_port: Callable[[grpc.aio.Server], int] | None = None) -> None:
        self._server = grpc.aio.server()
        feedback_pb2_grpc.add_FeedbackServiceServicer_to_server(self, self._server)
        user_pb2_grpc.add_UserServiceServicer_to_server(self, self._server)
        generation_pb2_grpc.add_GenerationServiceServicer_to_server(self, self._server)
        port = self._server.add_insecure_port("127.0.0.1:0") if add_port is None else add_port(self._server)
        self.address = f"localhost:{port}"
        await self._server.start()

    async def stop(self) -> None:
        assert self._server is not None
        await self._server.stop(None)

    async def _enter(self, request: Any, context: Context) -> None:
        self.calls.append(request)
        self.time_left.append(context.time_remaining())
        self.metadata.append(dict(context.invocation_metadata() or ()))  # type: ignore[arg-type]
        if self.hold is not None:
            await self.hold.wait()
        failure = self.failures.pop(0) if self.failures else None
        if isinstance(failure, PapaError):
            status = rpc_status.to_status(rich_status(failure, "request-1"))
            await context.abort(status.code, status.details, status.trailing_metadata)
        if failure is not None:
            await context.abort(failure, "no details")

    async def GetUser(self, request: user_pb2.GetUserRequest, context: Context) -> user_pb2.GetUserResponse:
        await self._enter(request, context)
        return user_pb2.GetUserResponse()

    async def WatchUser(
        self, request: user_pb2.WatchUserRequest, context: Context
    ) -> AsyncIterator[user_pb2.WatchUserResponse]:
        """One state a connection, a like more each time, then the next failure."""
        yield user_pb2.WatchUserResponse(state=user_pb2.UserState(likes=len(self.calls)))
        await self._enter(request, context)
        await asyncio.Event().wait()

    async def StreamGenerate(
        self, request: generation_pb2.StreamGenerateRequest, context: Context
    ) -> AsyncIterator[generation_pb2.StreamGenerateResponse]:
        await self._enter(request, context)
        yield generation_pb2.StreamGenerateResponse(item=generation_pb2.Item(item_id="first"))
        await self._enter(request, context)
        yield generation_pb2.StreamGenerateResponse(timings=generation_pb2.Timings(total_seconds=1.0))

    async def GenerateMany(
        self, request: generation_pb2.GenerateManyRequest, context: Context
    ) -> AsyncIterator[generation_pb2.GenerateManyResponse]:
        """Answers the last request first, then takes the next failure, then answers the others."""
        indices = list(reversed(range(len(request.requests))))
        for index in indices[:1]:
            yield generation_pb2.GenerateManyResponse(index=index, generation=_named(request.requests[index]))
        await self._enter(request, context)
        for index in indices[1:]:
            yield generation_pb2.GenerateManyResponse(index=index, generation=_named(request.requests[index]))

    async def SubmitFeedback(
        self, request: feedback_pb2.SubmitFeedbackRequest, context: Context
    ) -> feedback_pb2.SubmitFeedbackResponse:
        await self._enter(request, context)
        return feedback_pb2.SubmitFeedbackResponse(outcomes=[self._apply(event) for event in request.events])

    async def StreamFeedback(
        self, request_iterator: AsyncIterator[feedback_pb2.StreamFeedbackRequest], context: Context
    ) -> AsyncIterator[feedback_pb2.StreamFeedbackResponse]:
        """Applies every event, and loses the answer to the last one before the connection is cut."""
        cut = self.cut_after.pop(0) if self.cut_after else None
        if self.hold is not None:
            self.calls.append(None)
            await self.hold.wait()
        async for request in request_iterator:
            outcome = self._apply(request.event)
            if cut is not None:
                cut -= 1
                if cut == 0:
                    await context.abort(self.cut_with, "cut")
            yield feedback_pb2.StreamFeedbackResponse(outcome=outcome)

    def _apply(self, event: feedback_pb2.FeedbackEvent) -> feedback_pb2.FeedbackOutcome:
        self.received.append(event.event_id)
        duplicate = event.event_id in self.applied
        if not duplicate:
            self.applied.append(event.event_id)
        ack = feedback_pb2.FeedbackAck(duplicate=duplicate, sequence=self.applied.index(event.event_id) + 1)
        return feedback_pb2.FeedbackOutcome(event_id=event.event_id, ack=ack)


def _named(request: generation_pb2.GenerateRequest) -> generation_pb2.GenerateResponse:
    return generation_pb2.GenerateResponse(generation_id=f"of {request.user.user}")
