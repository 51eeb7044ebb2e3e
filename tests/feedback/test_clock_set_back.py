"""A clock that is set back must not keep a dead trainer alive for as long as the step was."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from papa_serving.attribution.memory import MemoryActivityLog
from papa_serving.feedback.memory import MemoryFeedbackLog
from papa_serving.settings import FeedbackSettings, Settings
from papa_serving.store.memory import MemoryItemStore, MemorySeenItems, MemoryState, MemoryUserDirectory
from redis.asyncio import Redis

from tests.store.support import PARTITIONS, Backend, open_redis, redis_settings

HOUR = 3600
SetBack = Callable[[], Awaitable[None]]


@pytest.fixture(params=["memory", "redis"])
async def clocked(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Backend, SetBack]]:
    """A backend, and what sets its clock back by an hour: on Redis, all that is stored moves an hour ahead instead."""
    if request.param == "memory":
        step = 0.0

        async def set_back() -> None:
            nonlocal step
            step = HOUR

        settings = Settings(feedback=FeedbackSettings(partitions=PARTITIONS), data_dir=tmp_path)
        state = MemoryState(settings, lambda: time.time() - step)
        stores = MemoryUserDirectory(state), MemoryItemStore(state), MemoryActivityLog(state), MemorySeenItems(state)
        yield Backend(settings, MemoryFeedbackLog(state), *stores), set_back
        return
    url = request.getfixturevalue("redis_server").url
    backend, raw = open_redis(redis_settings(url, tmp_path)), Redis.from_url(url, protocol=2)
    prefix = backend.settings.redis.prefix

    async def move_ahead() -> None:
        async for lease in raw.scan_iter(match=f"{prefix}:*:lease"):
            await raw.hincrby(lease, "until", HOUR * 1000)
        for member, said in (await raw.hgetall(f"{prefix}:members")).items():
            until, length = said.decode().split()
            await raw.hset(f"{prefix}:members", member, f"{int(until) + HOUR * 1000} {length}")

    yield backend, move_ahead
    await backend.close()
    await raw.aclose()


async def test_a_lease_does_not_outlive_its_length(clocked: tuple[Backend, SetBack]) -> None:
    backend, set_back = clocked
    dead = await backend.log.acquire(0, "dead", 30)
    assert dead is not None
    assert await backend.log.acquire(0, "successor", 30) is None
    await set_back()
    successor = await backend.log.acquire(0, "successor", 10)
    assert successor is not None
    assert successor.epoch == dead.epoch + 1
    assert await backend.log.acquire(0, "another", 30) is None


async def test_a_renewal_under_the_new_clock_is_a_whole_lease_again(clocked: tuple[Backend, SetBack]) -> None:
    backend, set_back = clocked
    lease = await backend.log.acquire(0, "alive", 30)
    assert lease is not None
    await set_back()
    await backend.log.renew(lease, 60)
    assert await backend.log.acquire(0, "other", 10) is None


async def test_a_dead_trainer_is_forgotten_and_the_live_ones_are_not(clocked: tuple[Backend, SetBack]) -> None:
    backend, set_back = clocked
    await backend.log.heartbeat("dead", 30)
    assert await backend.log.heartbeat("alive", 5) == ["alive", "dead"]
    await set_back()
    assert await backend.log.heartbeat("alive", 5) == ["alive"]
    assert await backend.log.heartbeat("other", 60) == ["alive", "other"]
