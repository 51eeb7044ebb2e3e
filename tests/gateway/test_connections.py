"""The life of a connection: pings without a call, and a new connection once it is old."""

from __future__ import annotations

import asyncio
import contextlib
import struct

import psutil
import pytest
from papa_serving.gateway import server
from papa_serving.stubs.serving.v1 import types_pb2, user_pb2

from tests.gateway.support.service import Service

GET = user_pb2.GetUserRequest(user=types_pb2.User(user="alice"))
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, PING, GOAWAY = 4, 6, 7
ACK = 1


def frame(kind: int, payload: bytes = b"", flags: int = 0) -> bytes:
    """A frame of HTTP/2 (RFC 9113, section 4.1) on stream 0."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, 0) + payload


async def read_frame(reader: asyncio.StreamReader) -> tuple[int, int]:
    """Kind and flags."""
    head = await reader.readexactly(9)
    await reader.readexactly(int.from_bytes(head[:3], "big"))
    return head[3], head[4]


@pytest.mark.parametrize(("interval", "welcome"), [(1, True), (60_000, False)])
async def test_pings_without_a_call(
    unstarted: Service, monkeypatch: pytest.MonkeyPatch, interval: int, welcome: bool
) -> None:
    """Every ping at a sane rate is answered; above it the connection ends."""
    monkeypatch.setattr(server, "MIN_PING_MS", interval)
    await unstarted.start()
    host, _, port = unstarted.gateway.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(PREFACE + frame(SETTINGS))
    answered, ended = 0, False
    while answered < 10 and not ended:
        writer.write(frame(PING, b"12345678"))
        try:
            while (seen := await asyncio.wait_for(read_frame(reader), 60)) != (PING, ACK):
                ended |= seen[0] == GOAWAY
        except (asyncio.IncompleteReadError, ConnectionError):
            ended = True
        answered += 1
        await asyncio.sleep(0.02)
    writer.close()
    assert ended is not welcome


def own_ports(port: int) -> set[int]:
    """Local ports of this process's connections to a port."""
    found = psutil.Process().net_connections("tcp")
    return {each.laddr.port for each in found if each.raddr and each.raddr.port == port}


async def test_an_old_connection_moves_and_loses_no_call(unstarted: Service) -> None:
    await unstarted.start(max_connection_age=0.2)
    port, used = int(unstarted.gateway.address.rpartition(":")[2]), set[int]()
    async with asyncio.timeout(30):
        while len(used) < 4:
            await asyncio.gather(*(unstarted.user.GetUser(GET) for _ in range(4)))
            used |= own_ports(port)
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("beginning", [b"", b"PRI * HTTP/2.0\r\n"])
async def test_a_handshake_that_never_ends_is_ended(
    unstarted: Service, beginning: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "HANDSHAKE_MS", 200)
    await unstarted.start()
    host, _, port = unstarted.gateway.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(beginning)
    async with asyncio.timeout(30):
        with contextlib.suppress(ConnectionError):
            while await reader.read(1_000):
                pass
    writer.close()
    assert await unstarted.serving("")
