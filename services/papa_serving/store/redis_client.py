"""One way to reach Redis, alone, in a Cluster or behind Sentinels: time-outs, retries, and its errors as ours."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from typing import Any

from redis import exceptions
from redis.asyncio import (
    BlockingConnectionPool,
    Connection,
    ConnectionPool,
    Redis,
    RedisCluster,
    Sentinel,
    SSLConnection,
)
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff, NoBackoff

from papa_serving.contracts.errors import StorageUnavailable
from papa_serving.settings import RedisSettings
from papa_serving.store.redis_address import RedisAddress, Topology, address_of

Argument = str | bytes | int | float
"""A part of a command."""

Client = Redis | RedisCluster
"""A client of one server or of a Cluster."""

MAX_CONNECTIONS = 32
RETRY_AFTER = 1.0
"""Seconds after which a caller may try again what failed for want of storage."""

_AWAY = re.compile(r"cannot be connected|not covered|not fully covered")
"""What the client of a Cluster says when nodes are away, in an error that it also uses for mistakes of ours."""

_REFUSALS = re.compile(
    r"\b(OOM|MISCONF|READONLY|LOADING|BUSY|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|NOREPLICAS|NOPERM|ACL failure)\b"
    "|user executing the script can't"
)


def connect(settings: RedisSettings) -> Client:
    """A client with a bounded pool; nothing is sent yet. Raises ValueError for a URL that it does not understand.

    What a lost connection left unanswered is sent again twice, on a new one; on a single server or behind Sentinels
    after a time-out never: whoever waits has waited long enough. Every write of ours is harmless when it is repeated,
    so a lost reply does no harm.
    """
    lost = (exceptions.ConnectionError,)
    retry = Retry(ExponentialBackoff(base=0.05, cap=0.5), 2, supported_errors=lost)
    address = address_of(settings)
    if address.topology is Topology.CLUSTER:
        return ClusterClient(address, settings.socket_timeout)
    return Redis.from_pool(_pool(settings, address, retry))


def connect_listener(settings: RedisSettings) -> Redis:
    """A client for a subscription, which must learn of every lost connection: it never sends again by itself.

    The nodes of a Cluster tell one another what is published, so it listens at whichever answers.
    """
    return Redis.from_pool(_pool(settings, address_of(settings), Retry(NoBackoff(), 0, supported_errors=())))


def _pool(settings: RedisSettings, address: RedisAddress, retry: Retry) -> ConnectionPool:
    seconds = settings.socket_timeout
    given: dict[str, Any] = {
        "socket_timeout": seconds,
        "socket_connect_timeout": seconds,
        "retry": retry,
        "protocol": 2,
    }
    bounds: dict[str, Any] = {"max_connections": MAX_CONNECTIONS, "timeout": seconds}
    if address.topology is Topology.SINGLE:
        pool = BlockingConnectionPool.from_url(settings.url, **bounds, **given)
        pool.connection_kwargs.update(address.options)
        return pool
    options = {name: value for name, value in address.options.items() if name != "ssl"}
    kind = _SecureConnectionToOne if "ssl" in address.options else _ConnectionToOne
    return BlockingConnectionPool(connection_class=kind, address=address, **bounds, **given, **options)


class _ConnectionToOne(Connection):
    """A connection to the primary that Sentinels name, or to any node of a Cluster: whichever answers first."""

    def __init__(self, *, address: RedisAddress, **given: Any) -> None:
        super().__init__(**given)
        self._address = address

    async def _connect(self) -> None:
        if self._address.topology is Topology.SENTINEL:
            self.host, self.port = await _primary(self._address, self.socket_connect_timeout)
            return await super()._connect()  # type: ignore[no-untyped-call,no-any-return]
        refusals = []
        for host, port in self._address.nodes:
            self.host, self.port = host, port
            try:
                return await super()._connect()  # type: ignore[no-untyped-call,no-any-return]
            except OSError as error:
                refusals.append(error)
        raise ConnectionRefusedError(f"no node of the Cluster answers: {refusals[-1]}")

    async def read_response(self, *given: Any, **named: Any) -> Any:
        """A server that has become a replica is left: Sentinels name another now."""
        try:
            return await super().read_response(*given, **named)
        except exceptions.ReadOnlyError as error:
            await self.disconnect()
            raise exceptions.ConnectionError("this server is no primary any more") from error


class _SecureConnectionToOne(_ConnectionToOne, SSLConnection):
    """The same over TLS."""


async def _primary(address: RedisAddress, seconds: float | None) -> tuple[str, int]:
    secure = {name: value for name, value in address.options.items() if name.startswith("ssl")}
    given: dict[str, Any] = {"socket_timeout": seconds, "socket_connect_timeout": seconds, **secure}
    sentinels = Sentinel(address.nodes, sentinel_kwargs=given)  # type: ignore[no-untyped-call]
    try:
        host, port = await sentinels.discover_master(address.service)
    finally:
        await asyncio.gather(*(sentinel.aclose() for sentinel in sentinels.sentinels))
    return host, int(port)


class ClusterClient(RedisCluster):
    """A Cluster's client that waits for a free connection instead of refusing: the bound is on calls under way."""

    def __init__(self, address: RedisAddress, seconds: float) -> None:
        super().__init__(
            startup_nodes=[ClusterNode(*node) for node in address.nodes],
            max_connections=MAX_CONNECTIONS,
            socket_timeout=seconds,
            socket_connect_timeout=seconds,
            retry=Retry(ExponentialBackoff(base=0.05, cap=0.5), 2),
            # Where slots have moved the client learns one by one: to begin anew it would close connections under calls.
            reinitialize_steps=0,
            protocol=2,
            **{name: value for name, value in address.options.items() if name != "db"},
        )
        self.connection_limit = asyncio.Semaphore(MAX_CONNECTIONS)

    async def _determine_nodes(self, command: str, *args: Any, **given: Any) -> list[ClusterNode]:
        """A script goes to the node of its keys; redis-py sends it anywhere and lets itself be redirected."""
        if command in ("EVAL", "EVALSHA"):
            return [*await self.get_nodes_from_slot(command, *args)]
        return [*await super()._determine_nodes(command, *args, **given)]


async def call(client: Client, *command: Argument) -> Any:
    """One command and its reply, undecoded; all its keys lie in one slot. Raises StorageUnavailable."""
    with storage_errors():
        async with _connection_permit(client):
            return await client.execute_command(*command)


async def call_all(client: Client, commands: Sequence[tuple[Argument, ...]]) -> list[Any]:
    """Many commands, sent together; a refused command has its error in the list instead. Raises StorageUnavailable."""
    with storage_errors():
        async with _connection_permit(client), client.pipeline(transaction=False) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)
            replies: list[Any] = await pipeline.execute(raise_on_error=False)
        return replies


def _connection_permit(client: Client) -> AbstractAsyncContextManager[Any]:
    return client.connection_limit if isinstance(client, ClusterClient) else nullcontext()


@contextmanager
def storage_errors() -> Iterator[None]:
    """Turns what Redis cannot do now into StorageUnavailable. No cancellation gets lost inside."""
    with cancellation_kept():
        try:
            yield
        except exceptions.RedisError as error:
            raise unavailable(error) from error
        except exceptions.RedisClusterException as error:
            if not _AWAY.search(str(error)):
                raise
            raise StorageUnavailable(f"Redis: {error}", retry_after=RETRY_AFTER) from error


@contextmanager
def cancellation_kept() -> Iterator[None]:
    """Raises CancelledError at the end when the task was asked to end within the block and something swallowed that.

    redis-py waits for replies with asyncio.wait_for, which before Python 3.12 drops a cancellation that arrives
    together with the reply: a time-out around the call would pass unnoticed, and a cancelled loop would never end.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task is not None else 0
    try:
        yield
    except Exception as error:
        if task is not None and task.cancelling() > before:
            raise asyncio.CancelledError from error
        raise
    if task is not None and task.cancelling() > before:
        raise asyncio.CancelledError


def unavailable(error: exceptions.RedisError) -> StorageUnavailable:
    """For lost connections, time-outs, and refusals that end (out of memory, disk full, loading, failing over, a right
    that was taken away).

    What Redis never accepts (and a script that it does not know) is raised as it is. A refusal in a script has its code
    in the text.
    """
    lasting = (
        isinstance(error, exceptions.ResponseError)
        and not isinstance(error, exceptions.NoPermissionError)
        and not _REFUSALS.search(f"{error.status_code or ''} {error}")
    )
    if lasting:
        raise error
    return StorageUnavailable(f"Redis: {error}", retry_after=RETRY_AFTER)
