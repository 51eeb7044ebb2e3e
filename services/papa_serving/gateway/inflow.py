"""The bounded buffer between a stream's reader and its worker: groups for throughput, limits for memory.

While the worker appends one group the reader fills the next one; when the buffer is full it stops reading, and HTTP/2's
flow control makes the caller wait.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable

from papa_serving.stubs.serving.v1 import feedback_pb2

MAX_EVENTS = 256
MAX_BYTES = 4 * 2**20


class Inflow:
    """Holds up to MAX_EVENTS events and MAX_BYTES bytes; a single larger event is let in alone."""

    def __init__(self) -> None:
        self._events: deque[feedback_pb2.FeedbackEvent] = deque()
        self._bytes = 0
        self._changed = asyncio.Condition()
        self._ended = False
        self._failure: Exception | None = None

    async def fill(self, requests: AsyncIterable[feedback_pb2.StreamFeedbackRequest]) -> None:
        """Reads to the end of the stream; a failure of it is raised by `take`, behind what came before."""
        try:
            async for request in requests:
                await self._put(request.event)
        except Exception as error:
            self._failure = error
        async with self._changed:
            self._ended = True
            self._changed.notify_all()

    async def _put(self, event: feedback_pb2.FeedbackEvent) -> None:
        size = event.ByteSize()
        async with self._changed:
            await self._changed.wait_for(
                lambda: not self._events or (len(self._events) < MAX_EVENTS and self._bytes + size <= MAX_BYTES)
            )
            self._events.append(event)
            self._bytes += size
            self._changed.notify_all()

    async def take(self) -> list[feedback_pb2.FeedbackEvent]:
        """Everything that waits, at least one event; empty at the end of the stream."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._events or self._ended)
            group = list(self._events)
            self._events.clear()
            self._bytes = 0
            self._changed.notify_all()
        if not group and self._failure is not None:
            raise self._failure
        return group
