"""One way to reach Redis: URL forms, time-outs, retries, and its errors as ours."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from redis import exceptions
from redis.asyncio import BlockingConnectionPool, ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff, NoBackoff

from services.contracts.errors import StorageUnavailable
from services.settings import RedisSettings

Argument = str | bytes | int | float
"""What a command is made of."""

MAX_CONNECTIONS = 32
RETRY_AFTER = 1.0
"""Seconds after which a caller may try again what failed for want of storage."""

_REFUSALS = re.compile(r"\b(OOM|MISCONF|READONLY|LOADING|BUSY|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|NOREPLICAS)\b")


def connect(settings: RedisSettings) -> Redis:
    """A client with a bounded pool; nothing is sent yet. Raises ValueError for a URL that it does not understand.

    What a lost connection left unanswered is sent again twice, on a new one; after a time-out never: whoever waits has
    waited long enough. Every write of ours is harmless when it is repeated, so a lost reply does no harm.
    """
    lost = (exceptions.ConnectionError,)
    return Redis.from_pool(_pool(settings, Retry(ExponentialBackoff(base=0.05, cap=0.5), 2, supported_errors=lost)))


def connect_listener(settings: RedisSettings) -> Redis:
    """A client for a subscription, which must learn of every lost connection: it never sends again by itself."""
    return Redis.from_pool(_pool(settings, Retry(NoBackoff(), 0, supported_errors=())))


def _pool(settings: RedisSettings, retry: Retry) -> ConnectionPool:
    if not settings.url:
        raise ValueError("redis.url is empty: set PAPA_REDIS__URL, or let `papa up` start an embedded server")
    scheme = urlsplit(settings.url).scheme
    if scheme not in _POOLS:
        raise ValueError(f"redis.url begins with {scheme!r}, not with one of {', '.join(f'{s}://' for s in _POOLS)}")
    return _POOLS[scheme](settings, retry)


def _single_server(settings: RedisSettings, retry: Retry) -> ConnectionPool:
    pool = BlockingConnectionPool.from_url(
        settings.url,
        max_connections=MAX_CONNECTIONS,
        timeout=settings.socket_timeout,
        socket_timeout=settings.socket_timeout,
        socket_connect_timeout=settings.socket_timeout,
        retry=retry,
        protocol=2,
    )
    if settings.password is not None:
        pool.connection_kwargs["password"] = settings.password.get_secret_value()
    return pool


_POOLS: Mapping[str, Callable[[RedisSettings, Retry], ConnectionPool]] = {
    "redis": _single_server,
    "rediss": _single_server,
    "unix": _single_server,
}
"""How each URL scheme is reached."""


async def call(client: Redis, *command: Argument) -> Any:
    """One command and its reply, undecoded. Raises StorageUnavailable."""
    with storage_errors():
        return await client.execute_command(*command)  # type: ignore[no-untyped-call]


@contextmanager
def storage_errors() -> Iterator[None]:
    """Turns what Redis cannot do now into StorageUnavailable. No cancellation gets lost inside."""
    with cancellation_kept():
        try:
            yield
        except exceptions.RedisError as error:
            raise unavailable(error) from error


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
    """For lost connections, time-outs, and refusals that end (out of memory, disk full, loading, failing over).

    What Redis never accepts (and a script that it does not know) is raised as it is. A refusal in a script has its code
    in the text.
    """
    lasting = isinstance(error, exceptions.ResponseError) and not _REFUSALS.search(f"{error.status_code or ''} {error}")
    if lasting:
        raise error
    return StorageUnavailable(f"Redis: {error}", retry_after=RETRY_AFTER)
