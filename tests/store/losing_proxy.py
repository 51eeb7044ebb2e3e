"""A TCP proxy before Redis that loses replies: the command was carried out, and the client does not learn of it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Self


class LosingProxy:
    """Forwards bytes to a unix socket. After `lose(n)` the next n replies vanish; the connection is then cut, or, with
    `silently`, stays open and says nothing."""

    def __init__(self, socket_path: str) -> None:
        self.url = ""
        self.lost = 0
        self._path = socket_path
        self._to_lose = 0
        self._silently = False
        self._tasks: set[asyncio.Task[None]] = set()

    def lose(self, replies: int, *, silently: bool = False) -> None:
        self._to_lose, self._silently, self.lost = replies, silently, 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *raised: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.add(task := asyncio.current_task())
        upstream_reader, upstream_writer = await asyncio.open_unix_connection(self._path)
        there = asyncio.create_task(self._forward(reader, upstream_writer))
        back = asyncio.create_task(self._bring_back(upstream_reader, writer))
        try:
            await asyncio.wait([there, back], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for direction in (there, back):
                direction.cancel()
            writer.close()
            upstream_writer.close()
            self._tasks.discard(task)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(2**16):
                writer.write(data)

    async def _bring_back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(2**16):
                if self._to_lose:
                    self._to_lose -= 1
                    self.lost += 1
                    if not self._silently:
                        return
                else:
                    writer.write(data)
