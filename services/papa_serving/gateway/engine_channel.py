"""The gateway's connections to the generator's address, renewed so that they follow what the address names."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from papa_serving.contracts.limits import MAX_ENGINE_MESSAGE_BYTES
from papa_serving.stubs.engine.v1 import engine_pb2_grpc

log = logging.getLogger(__name__)

# Serve's list of its applications, as bytes, so that no message class of Ray's is needed.
LIST_APPLICATIONS = "/ray.serve.RayServeAPIService/ListApplications"
CONNECT_SECONDS = 2.0

CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", MAX_ENGINE_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_ENGINE_MESSAGE_BYTES),
    # A restarted generator is found within a second or two; the library's own limit is two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # A window that does not grow with what the network could carry: what a caller does not read waits in the engine,
    # whatever the machine.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 4 * 2**20),
    ("grpc.enable_http_proxy", 0),
    # Otherwise a new channel to the same IP address takes over the old one's TCP connection.
    ("grpc.use_local_subchannel_pool", 1),
)


class Connection:
    """One channel, its stubs, and the number of calls that run on it."""

    def __init__(self, address: str) -> None:
        self.channel = grpc.aio.insecure_channel(address, CHANNEL_OPTIONS)
        self.stub = engine_pb2_grpc.EngineServiceStub(self.channel)
        self.list_applications = self.channel.unary_unary(LIST_APPLICATIONS, None, None)
        self.opened = time.monotonic()
        self._calls, self._unused = 0, asyncio.Event()
        self._unused.set()

    @contextmanager
    def call(self) -> Iterator[None]:
        """Keeps the channel open meanwhile."""
        self._calls += 1
        self._unused.clear()
        try:
            yield
        finally:
            self._calls -= 1
            if not self._calls:
                self._unused.set()

    async def connect(self) -> bool:
        """Whether the server behind the address takes a connection."""
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                while (state := self.channel.get_state(try_to_connect=True)) is not grpc.ChannelConnectivity.READY:
                    if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                        return False
                    await self.channel.wait_for_state_change(state)
        except TimeoutError:
            return False
        return True

    async def finish(self) -> None:
        """Closes the channel when its last call has ended."""
        try:
            await self._unused.wait()
        finally:
            await self.channel.close(None)


class EngineChannel:
    """The connection for new calls.

    A connection stays with the server that it once reached, also when the address names another one by now. So after
    `max_age` seconds, and when a call finds nobody, a new one resolves the name anew. It takes over once it is
    connected, and the old one serves its calls to their ends.
    """

    def __init__(self, address: str, max_age: float) -> None:
        """`max_age` in seconds."""
        self._address, self._max_age = address, max_age
        self._current = Connection(address)
        self._renewal: asyncio.Task[None] | None = None
        self._finishing: set[asyncio.Task[None]] = set()

    def current(self) -> Connection:
        """The connection for a new call. Begins the renewal of one that is too old."""
        if time.monotonic() - self._current.opened >= self._max_age:
            self._renewing()
        return self._current

    async def renew(self, failed: Connection) -> None:
        """Replaces a connection on which a call found nobody, unless that has happened already or nobody answers."""
        if failed is self._current:
            await asyncio.shield(self._renewing())

    async def close(self) -> None:
        """Ends running calls."""
        tasks = [*self._finishing, *([] if self._renewal is None else [self._renewal])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._current.channel.close(None)

    def _renewing(self) -> asyncio.Task[None]:
        """The renewal that runs; one serves all who ask for it."""
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.create_task(self._renew())
        return self._renewal

    async def _renew(self) -> None:
        new, connected = Connection(self._address), False
        try:
            connected = await new.connect()
        finally:
            if not connected:
                await new.channel.close(None)
        if not connected:
            log.info("no generator answers at %s: the connection is not renewed", self._address)
            return
        old, self._current = self._current, new
        task = asyncio.create_task(old.finish())
        self._finishing.add(task)
        task.add_done_callback(self._finishing.discard)
