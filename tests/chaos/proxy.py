"""A TCP proxy before Redis: it loses replies, and it holds everything back as a partitioned network does."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Self


class Proxy:
    """Forwards bytes to a unix socket.

    `lose(n)`: from now on every n-th reply vanishes; the connection is then cut, or, `silently`, stays open and says
    nothing.
    `part()`: nothing passes in either direction and no connection is made. `heal(late)`: with `late` what was held
    back arrives now, as retransmitted packets do; without, it is lost together with its connections.
    """

    def __init__(self, socket_path: str, host: str = "127.0.0.1") -> None:
        self.url = ""
        self._host = host
        self._path = socket_path
        self._lose_every = 0
        self._replies = 0
        self._silently = False
        self._open = asyncio.Event()
        self._open.set()
        self._lost_with = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def lose(self, every: int, *, silently: bool) -> None:
        self._lose_every, self._silently = every, silently

    def part(self) -> None:
        self._open.clear()

    def heal(self, *, late: bool) -> None:
        self._lose_every = 0
        if not self._open.is_set():
            self._lost_with += not late
            self._open.set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, self._host, 0)
        self.url = f"redis://{self._host}:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *raised: object) -> None:
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with suppress(OSError, asyncio.CancelledError):
                await self._connect(reader, writer)
        finally:
            writer.close()
            self._tasks.discard(task)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._open.wait()
        upstream_reader, upstream_writer = await asyncio.open_unix_connection(self._path)
        parts: list[Coroutine[Any, Any, None]] = [
            self._pass(reader, upstream_writer, replies=False),
            self._pass(upstream_reader, writer, replies=True),
        ]
        tasks = [asyncio.create_task(part) for part in parts]
        try:
            # What one side has sent before it hung up still arrives, as it does on a real network.
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            upstream_writer.close()  # before anything is awaited: a second cancellation would leave it open
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, replies: bool) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(2**16):
                if not self._open.is_set():
                    before = self._lost_with
                    await self._open.wait()
                    if self._lost_with != before:
                        return
                self._replies += replies
                if replies and self._lose_every and self._replies % self._lose_every == 0:
                    if not self._silently:
                        return
                else:
                    writer.write(data)
