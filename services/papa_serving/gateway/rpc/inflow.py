"""The buffer of a stream whose messages are handled in groups."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, Callable
from typing import Generic, TypeVar

from google.protobuf.message import Message

Part = TypeVar("Part", bound=Message)
"""What a message of the stream carries."""
Request = TypeVar("Request", bound=Message)


class Inflow(Generic[Part]):
    """The bounded buffer between a stream's reader and its worker.

    While the worker handles one group the reader fills the next. It holds up to `most` parts and `most_bytes` bytes; a
    single larger part is let in alone. A full buffer stops the reader.
    """

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._parts: deque[Part] = deque()
        self._bytes = 0
        self._changed = asyncio.Condition()
        self._ended = False
        self._failure: Exception | None = None

    async def fill(self, requests: AsyncIterable[Request], part_of: Callable[[Request], Part]) -> None:
        """Reads to the end of the stream. `take` raises its failure once it has returned what came before."""
        try:
            async for request in requests:
                await self._put(part_of(request))
                del request  # a stream that waits for its next message keeps none
        except Exception as error:
            self._failure = error
        async with self._changed:
            self._ended = True
            self._changed.notify_all()

    async def _put(self, part: Part) -> None:
        size = part.ByteSize()
        async with self._changed:
            await self._changed.wait_for(
                lambda: not self._parts or (len(self._parts) < self._most and self._bytes + size <= self._most_bytes)
            )
            self._parts.append(part)
            self._bytes += size
            self._changed.notify_all()

    async def take(self) -> list[Part]:
        """Waits for parts and returns all that have arrived; an empty list at the end of the stream."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._parts or self._ended)
            group = list(self._parts)
            self._parts.clear()
            self._bytes = 0
            self._changed.notify_all()
        if not group and self._failure is not None:
            raise self._failure
        return group
