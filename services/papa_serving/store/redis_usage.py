"""Gauges of the memory of Redis and of the state of its append-only file."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass

from redis import exceptions
from redis.asyncio import RedisCluster

from papa_serving import metrics
from papa_serving.contracts.errors import StorageUnavailable
from papa_serving.settings import RedisSettings
from papa_serving.store.redis_client import Client, connect, storage_errors
from papa_serving.store.redis_replies import understood

_log = logging.getLogger(__name__)

EVERY = 15.0
"""Seconds between two measurements, about one per scrape."""

Info = Mapping[str, object]
"""The reply to INFO of one server."""


@dataclass(frozen=True)
class Usage:
    """Bytes used and allowed on the fullest primary, and whether the append-only file of every primary is written."""

    used: int
    limit: int
    persistent: bool


def usage_of(infos: list[Info]) -> Usage:
    """Computes the usage from the primaries' INFO. Without `maxmemory` a server may use all memory of its machine."""
    memory = [(_number(info, "used_memory"), _limit(info)) for info in infos]
    used, limit = max(memory, key=lambda pair: pair[0] / max(1, pair[1]))
    return Usage(used, limit, all(_persistent(info) for info in infos))


async def observe_redis(settings: RedisSettings) -> None:
    """Sets the gauges of the Redis at `settings.url` until it is cancelled.

    When the server cannot be reached the gauges keep their values. When it refuses INFO they stay at zero, and the log
    says so once.
    """
    client = connect(settings)
    try:
        while True:
            try:
                infos = await _infos(client)
                with understood():
                    _report(usage_of(infos), settings.require_persistence)
            except StorageUnavailable as error:
                if isinstance(error.__cause__, exceptions.NoPermissionError):
                    _log.warning("Redis refuses INFO, its memory is not measured: %s", error.__cause__)
                    return
                _log.debug("cannot measure Redis: %s", error.message)
            await asyncio.sleep(EVERY)
    finally:
        await client.aclose()


def _report(usage: Usage, persistence_needed: bool) -> None:
    metrics.REDIS_MEMORY_USED.set(usage.used)
    metrics.REDIS_MEMORY_LIMIT.set(usage.limit)
    metrics.REDIS_PERSISTENCE_FAILING.set(persistence_needed and not usage.persistent)


async def _infos(client: Client) -> list[Info]:
    with storage_errors():
        if isinstance(client, RedisCluster):
            answers = await client.info(target_nodes=RedisCluster.PRIMARIES)
            return list(answers.values()) if "used_memory" not in answers else [answers]
        return [await client.info()]


def _limit(info: Info) -> int:
    return _number(info, "maxmemory") or _number(info, "total_system_memory")


def _persistent(info: Info) -> bool:
    return _number(info, "aof_enabled") == 1 and info.get("aof_last_write_status", "ok") == "ok"


def _number(info: Info, name: str) -> int:
    return int(str(info.get(name, 0)))
