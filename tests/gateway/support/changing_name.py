"""An address that begins to name another server, as a Kubernetes Service does in an upgrade."""

from __future__ import annotations

import asyncio


class ChangingName:
    """A TCP relay. New connections reach `port`; those that stand stay with whom they reached."""

    def __init__(self, port: int) -> None:
        self.port, self.connections = port, 0
        self._open: list[int] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> str:
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port = self.port
        back, forth = await asyncio.open_connection("127.0.0.1", port)
        self.connections += 1
        self._open.append(port)
        pumps = [asyncio.create_task(_pump(reader, forth)), asyncio.create_task(_pump(back, writer))]
        self._tasks.update(pumps)
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        forth.close()
        writer.close()
        self._open.remove(port)

    def open(self, port: int = 0) -> int:
        """Connections that stand, to one server or to all."""
        return self._open.count(port) if port else len(self._open)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(2**16):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        writer.close()
