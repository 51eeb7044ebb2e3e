"""A server that answers everything with the same lie."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Self

LIES = {
    "a text": b"$5\r\nhello\r\n",
    "eight letters, as many as the state has fields": b"$8\r\nhellohel\r\n",
    "two letters, as many as a lease has fields": b"$2\r\nhi\r\n",
    "an empty text": b"$0\r\n\r\n",
    "done": b"+OK\r\n",
    "a negative number": b":-1\r\n",
    "a number of 5,000 digits": b":" + b"9" * 5_000 + b"\r\n",
    "no number": b":one\r\n",
    "an empty list": b"*0\r\n",
    "a list of lists": b"*1\r\n*1\r\n*1\r\n:1\r\n",
    "a list of the wrong length": b"*3\r\n$1\r\n1\r\n:7\r\n$-1\r\n",
    "a list of eight texts": b"*8\r\n" + b"$1\r\nx\r\n" * 8,
    "lists within lists": b"*1\r\n" * 2_000 + b":1\r\n",
    "a negative length": b"$-7\r\n",
    "a list without end": b"*2147483647\r\n",
    "2 GB": b"$2147483647\r\n" + b"x" * 65_536,
    "an unknown error": b"-ERR something is odd\r\n",
    "a key of another type": b"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n",
    "a script that is never known": b"-NOSCRIPT No matching script\r\n",
    "another protocol": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "noise": b"\x00\xff\x1b[31m\r\n\r\n",
    "a line without end": b"+" + b"x" * 200_000,
    "half a reply": b"*2\r\n$5\r\nhel",
    "a sequence and no code": b"$1\r\n0\r\n",
    "a code that there is not": b"$5\r\n99 12\r\n",
    "more answers than questions": b"$11\r\n0 1 0 2 0 3\r\n",
}


class LyingServer:
    """Answers everything with `lie`, and then with `without_end` until nobody reads on; both may be changed."""

    def __init__(self, lie: bytes, without_end: bytes = b"") -> None:
        self.lie, self.without_end, self.url = lie, without_end, ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/0"
        return self

    async def __aexit__(self, *raised: object) -> None:
        self._server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while await reader.read(2**16):
                writer.write(self.lie)
                await writer.drain()
                while self.without_end:
                    writer.write(self.without_end)
                    await writer.drain()
        writer.close()
