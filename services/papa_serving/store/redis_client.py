"""Connects to Redis, alone, in a Cluster or behind Sentinels, with timeouts, retries and typed errors."""

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
from papa_serving.store.redis_replies import BoundedParser, ScriptUnknown, check_answer, damaged, understood

Argument = str | bytes | int | float
"""The type of a command's arguments."""

Client = Redis | RedisCluster
"""A client of one server or of a Cluster."""

MAX_CONNECTIONS = 32
RETRY_AFTER = 1.0
"""Seconds after which a caller may retry a call that failed because of storage."""

_AWAY = re.compile(r"cannot be connected|not covered|not fully covered")
"""Messages of the Cluster client for missing nodes. It raises the same class for wrong commands."""

_REFUSALS = re.compile(
    r"\b(OOM|MISCONF|READONLY|LOADING|BUSY|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|NOREPLICAS|NOPERM|ACL failure)\b"
    "|user executing the script can't"
)


def connect(settings: RedisSettings) -> Client:
    """A client with a bounded pool; it connects on first use. Raises ValueError for a malformed URL.

    After a lost connection a command is retried twice, on a new connection. This is safe because all writes of the
    product are idempotent. On a single server and behind Sentinels a command that timed out is not retried: its caller
    has waited long enough.
    """
    lost = (exceptions.ConnectionError,)
    retry = Retry(ExponentialBackoff(base=0.05, cap=0.5), 2, supported_errors=lost)
    address = address_of(settings)
    if address.topology is Topology.CLUSTER:
        return ClusterClient(address, settings.socket_timeout)
    return Redis.from_pool(_pool(settings, address, retry))


def connect_listener(settings: RedisSettings) -> Redis:
    """A client for a subscription. It never retries, because the subscriber must notice every lost connection.

    The nodes of a Cluster forward published messages to each other, so any node can be subscribed to.
    """
    return Redis.from_pool(_pool(settings, address_of(settings), Retry(NoBackoff(), 0, supported_errors=())))


def _pool(settings: RedisSettings, address: RedisAddress, retry: Retry) -> ConnectionPool:
    seconds = settings.socket_timeout
    given: dict[str, Any] = {
        "socket_timeout": seconds,
        "socket_connect_timeout": seconds,
        "retry": retry,
        "protocol": 2,
        "parser_class": BoundedParser,
    }
    bounds: dict[str, Any] = {"max_connections": MAX_CONNECTIONS, "timeout": seconds}
    if address.topology is Topology.SINGLE:
        pool = BlockingConnectionPool.from_url(address.url, **bounds, **given)
        pool.connection_kwargs.update(address.options)
        return pool
    options = {name: value for name, value in address.options.items() if name != "ssl"}
    kind = _SecureConnectionToOne if "ssl" in address.options else _ConnectionToOne
    return BlockingConnectionPool(connection_class=kind, address=address, **bounds, **given, **options)


class _ConnectionToOne(Connection):
    """A connection to the primary that Sentinels name, or to the first node of a Cluster that answers."""

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
        """Disconnects from a server that has become a replica, because Sentinels now name another primary."""
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
    """A Cluster client that waits for a free connection instead of failing. It bounds the calls in flight."""

    def __init__(self, address: RedisAddress, seconds: float) -> None:
        super().__init__(
            startup_nodes=[ClusterNode(*node) for node in address.nodes],
            max_connections=MAX_CONNECTIONS,
            socket_timeout=seconds,
            socket_connect_timeout=seconds,
            retry=Retry(ExponentialBackoff(base=0.05, cap=0.5), 2),
            # The client learns of moved slots one by one. Reinitialising would close connections with calls in flight.
            reinitialize_steps=0,
            protocol=2,
            **{name: value for name, value in address.options.items() if name != "db"},
        )
        self.connection_limit = asyncio.Semaphore(MAX_CONNECTIONS)
        for given in (self.connection_kwargs, *(node.connection_kwargs for node in self.startup_nodes)):
            given["parser_class"] = BoundedParser

    async def _determine_nodes(self, command: str, *args: Any, **given: Any) -> list[ClusterNode]:
        """Sends a script to the node of its keys. Redis-py would send it to any node and follow the redirection."""
        if command in ("EVAL", "EVALSHA"):
            return [*await self.get_nodes_from_slot(command, *args)]
        return [*await super()._determine_nodes(command, *args, **given)]


async def call(client: Client, *command: Argument) -> Any:
    """Sends one command and returns its raw reply. All its keys must be in one hash slot. Raises StorageUnavailable."""
    with storage_errors():
        async with _connection_permit(client):
            reply = await client.execute_command(*command)
    check_answer(str(command[0]), reply)
    return reply


async def call_all(client: Client, commands: Sequence[tuple[Argument, ...]]) -> list[Any]:
    """Sends many commands together. The reply of a refused command is its error. Raises StorageUnavailable."""
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
    """Turns temporary errors of Redis into StorageUnavailable, and replies that make no sense into StorageDamaged.

    Cancellations inside are not lost.
    """
    with cancellation_kept(), understood():
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
    """Raises CancelledError at the end of the block if the task was cancelled within it and the error was swallowed.

    redis-py waits for replies with asyncio.wait_for. Before Python 3.12 that drops a cancellation that arrives together
    with the reply: a timeout around the call would have no effect, and a cancelled loop would never end.
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
    """The StorageUnavailable for a temporary error: a lost connection, a timeout, or a refusal that can end (out of
    memory, disk full, loading, failing over, a revoked right).

    Other errors, such as a key of another type, become StorageDamaged. An error within a script has its code in the
    message.
    """
    if isinstance(error, exceptions.NoScriptError):
        return ScriptUnknown(f"Redis: {error}")
    lasting = (
        isinstance(error, exceptions.ResponseError)
        and not isinstance(error, exceptions.NoPermissionError)
        and not _REFUSALS.search(f"{error.status_code or ''} {error}")
    )
    if lasting:
        return damaged(str(error))
    return StorageUnavailable(f"Redis: {error}", retry_after=RETRY_AFTER)
