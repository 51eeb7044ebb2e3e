"""The gauges of Redis against real servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from papa_serving import metrics
from papa_serving.local.redis_process import RedisProcess
from papa_serving.settings import RedisSettings
from papa_serving.store import redis_usage
from papa_serving.store.redis_usage import Usage, observe_redis, usage_of
from prometheus_client import Gauge
from redis.asyncio import Redis

MEBIBYTE = 1024 * 1024


def value(gauge: Gauge) -> float:
    (sample,) = next(iter(gauge.collect())).samples
    return sample.value


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110 - a gauge wakes nobody
            await asyncio.sleep(0.01)


@asynccontextmanager
async def observed(server: RedisProcess) -> AsyncIterator[None]:
    observing = asyncio.create_task(observe_redis(RedisSettings(url=server.url)))
    yield
    observing.cancel()
    await asyncio.gather(observing, return_exceptions=True)  # it closes its connections


async def test_gauges_follow_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_usage, "EVERY", 0.01)
    with RedisProcess(tmp_path) as server:
        admin = Redis.from_url(server.url, protocol=2)
        async with observed(server):
            await until(lambda: value(metrics.REDIS_MEMORY_LIMIT) > 0)
            assert value(metrics.REDIS_PERSISTENCE_FAILING) == 0

            await admin.config_set("maxmemory", 64 * MEBIBYTE)
            await until(lambda: value(metrics.REDIS_MEMORY_LIMIT) == 64 * MEBIBYTE)
            before = value(metrics.REDIS_MEMORY_USED)
            await admin.set("weight", b"x" * 8 * MEBIBYTE)
            await until(lambda: value(metrics.REDIS_MEMORY_USED) > before + 7 * MEBIBYTE)

            await admin.config_set("appendonly", "no")
            await until(lambda: value(metrics.REDIS_PERSISTENCE_FAILING) == 1)
        await admin.aclose()


async def test_a_server_that_refuses_info_is_left_alone(tmp_path: Path) -> None:
    with RedisProcess(tmp_path) as server:
        admin = Redis.from_url(server.url, protocol=2)
        await admin.acl_setuser("default", enabled=True, commands=["-info"])
        async with asyncio.timeout(30):
            await observe_redis(RedisSettings(url=server.url))
        await admin.aclose()


async def test_a_server_that_is_away_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_usage, "EVERY", 0.01)
    server = RedisProcess(tmp_path)
    with server:
        pass
    async with observed(server):
        metrics.REDIS_MEMORY_USED.set(0)
        server.start()
        await until(lambda: value(metrics.REDIS_MEMORY_USED) > 0)
    server.stop()


def test_the_fullest_primary_counts_and_every_one_must_be_persistent() -> None:
    roomy = {"used_memory": 50, "maxmemory": 1000, "aof_enabled": 1, "aof_last_write_status": "ok"}
    full = {"used_memory": 9, "maxmemory": 10, "aof_enabled": 1, "aof_last_write_status": "err"}
    unlimited = {"used_memory": 5, "maxmemory": 0, "total_system_memory": 4000, "aof_enabled": 1}
    assert usage_of([roomy, full, unlimited]) == Usage(9, 10, persistent=False)
    assert usage_of([roomy, unlimited]) == Usage(50, 1000, persistent=True)
    assert usage_of([unlimited]) == Usage(5, 4000, persistent=True)
