"""The two streams of the asyncio client: items as they finish, outcomes as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping
from types import MappingProxyType, TracebackType
from typing import Self

import grpc

from papa_serving.client import wire
from papa_serving.client.errors import ended_early, error_of_repeatable
from papa_serving.client.records import FeedbackEvent, Item, Outcome, PromptReading, ServedBy, Timings
from papa_serving.client.retry import Attempts
from papa_serving.client.window import Sending, Window
from papa_serving.contracts.errors import PapaError
from papa_serving.stubs.serving.v1 import feedback_pb2, generation_pb2

Events = AsyncIterable[FeedbackEvent] | Iterable[FeedbackEvent]
Requests = AsyncIterator[feedback_pb2.StreamFeedbackRequest]
Items = grpc.aio.UnaryStreamCall[generation_pb2.StreamGenerateRequest, generation_pb2.StreamGenerateResponse]
Outcomes = grpc.aio.StreamStreamCall[feedback_pb2.StreamFeedbackRequest, feedback_pb2.StreamFeedbackResponse]


class AsyncItemStream(AsyncIterator[Item]):
    """Yields items in the order in which they finish. The summary of the generation is known after the last item.

    A failure before the first item is retried; a later one is raised.
    """

    generation_id: str = ""
    revision: str = ""
    served_by: ServedBy | None = None
    timings: Timings | None = None
    prompt_reading: PromptReading | None = None
    request_id: str = ""
    noise_version: int = 1
    acceptance: float = 1.0
    drawn: int = 0
    arms: Mapping[str, str] = MappingProxyType({})

    def __init__(self, start: Callable[[], Items], attempts: Attempts, closed: Callable[[], bool]) -> None:
        self._start, self._attempts, self._closed = start, attempts, closed
        self._cancelled = False
        self.request_id = attempts.request_id
        self._call = start()
        self._messages = aiter(self._call)
        self._any = False

    async def __anext__(self) -> Item:
        while True:
            try:
                message = await anext(self._messages)
            except grpc.aio.AioRpcError as failure:
                await self._try_again(failure)
                continue
            self._any = True
            self.generation_id, self.revision = message.generation_id, message.revision
            self.served_by = wire.served_by(message.served_by)
            if message.HasField("item"):
                return wire.item(message.item)
            self.timings = wire.timings(message.timings)
            self.prompt_reading = wire.prompt_reading(message)
            self.noise_version = message.noise_version or 1
            self.acceptance, self.drawn = wire.acceptance(message), message.drawn
            self.arms = dict(message.arms)

    def cancel(self) -> None:
        """Ends the generation early; the next item raises CancelledError."""
        self._cancelled = True
        self._call.cancel()

    async def _try_again(self, failure: grpc.aio.AioRpcError) -> None:
        error = error_of_repeatable(failure, self._cancelled or self._closed())
        if self._any:
            raise self._attempts.name(error)
        await asyncio.sleep(self._attempts.pause_after(error))
        self._call = self._start()
        self._messages = aiter(self._call)
        if self._cancelled:  # during the pause
            self._call.cancel()


class AsyncFeedbackStream(AsyncIterator[Outcome]):
    """Yields outcomes in the order of the events.

    Leaving the `async with` block, or `close`, stops early. Unanswered events may then have been accepted or not;
    sending them again under the same event_ids is harmless. One task reads the caller's events for the whole stream, so
    a lost connection does not interrupt the reading.
    """

    def __init__(
        self,
        start: Callable[[Requests], Outcomes],
        events: Events,
        convert: Callable[[FeedbackEvent], Sending],
        window: int,
        attempts: Attempts,
        closed: Callable[[], bool],
    ) -> None:
        self._start, self._convert, self._attempts, self._closed = start, convert, attempts, closed
        self._ended = False
        self._window = Window(window)
        self._changed = asyncio.Condition()
        self._connection = 0
        self._reading = asyncio.create_task(self._read(events))
        self._connect()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Stops reading events and ends the call."""
        self._ended = True
        self._connection += 1
        self._call.cancel()
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)

    async def __anext__(self) -> Outcome:
        while True:
            try:
                message = (await anext(self._messages)).outcome
            except grpc.aio.AioRpcError as failure:
                await self._reconnect(error_of_repeatable(failure, self._ended or self._closed()))
            except StopAsyncIteration:
                if not self._window.finished:
                    await self._reconnect(ended_early())
                    continue
                await self._reading
                raise
            else:
                self._attempts.succeed()
                async with self._changed:
                    sent = self._window.answered(message)
                    self._changed.notify_all()
                return sent.outcome(message)

    def _connect(self) -> None:
        self._call = self._start(self._requests(self._connection))
        self._messages = aiter(self._call)

    async def _reconnect(self, error: PapaError) -> None:
        try:
            await asyncio.sleep(self._attempts.pause_after(error))
        except PapaError:
            await self.close()
            raise
        async with self._changed:
            self._connection += 1
            self._window.reconnect()
            self._changed.notify_all()
        self._connect()
        if self._ended:  # during the pause
            self._call.cancel()

    async def _requests(self, connection: int) -> Requests:
        """The requests of this connection, until it is replaced or everything has been sent."""
        while True:
            async with self._changed:
                if connection != self._connection:
                    return
                request = self._window.next_request()
                if request is None and self._window.exhausted:
                    return
                if request is None:
                    await self._changed.wait()
                    continue
            yield request

    async def _read(self, events: Events) -> None:
        try:
            if isinstance(events, AsyncIterable):
                async for event in events:
                    await self._add(event)
            else:
                for event in events:
                    await self._add(event)
        finally:
            async with self._changed:
                self._window.exhausted = True
                self._changed.notify_all()

    async def _add(self, event: FeedbackEvent) -> None:
        """Adds an event and waits until there is room for another one."""
        sending = self._convert(event)
        async with self._changed:
            self._window.add(sending)
            self._changed.notify_all()
            await self._changed.wait_for(lambda: self._window.may_read)
