"""Watching on Redis: one subscription, no polling, and a restart in between."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from papa_serving.contracts.errors import StorageDamaged
from papa_serving.contracts.identity import UserKey
from papa_serving.local.redis_process import RedisProcess
from papa_serving.store import redis_changes
from redis.asyncio import Redis

from tests.store.support import Backend, open_redis, redis_settings, soon


async def subscriptions(raw: Redis) -> list[dict[str, str]]:
    return [client for client in await raw.client_list() if client["sub"] != "0"]


async def until_subscribed_to(raw: Redis, connection: str, channels: int) -> None:
    """Waits until that connection has so many subscriptions; 0 when it is gone."""
    while True:
        counts = {client["id"]: int(client["sub"]) for client in await raw.client_list()}
        if counts.get(connection, 0) == channels:
            return
        await asyncio.sleep(0.02)


async def test_watchers_of_a_process_share_one_connection(redis_backend: Backend, raw: Redis) -> None:
    before = await subscriptions(raw)
    watches = [redis_backend.users.watch(UserKey("shop", str(n % 5))) for n in range(20)]
    for states in watches:
        await soon(states)
    await redis_backend.append(UserKey("shop", "0"), "a")
    assert (await soon(watches[0])).pending == 1
    (connection,) = [client for client in await subscriptions(raw) if client["id"] not in {c["id"] for c in before}]
    assert connection["sub"] == "5"
    for left in range(20, 0, -1):
        await until_subscribed_to(raw, connection["id"], min(left, 5))
        await watches[20 - left].aclose()
    await until_subscribed_to(raw, connection["id"], 0)


async def test_waiting_asks_redis_nothing(
    redis_backend: Backend, raw: Redis, user: UserKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_changes, "LONGEST_SILENCE", 1000.0)
    states = redis_backend.users.watch(user)
    await soon(states)
    waiting = asyncio.create_task(anext(states))
    looks = [1]
    while looks[-1] and len(looks) < 10:  # the confirmation of the subscription is a reason to look once more
        await raw.config_resetstat()
        await asyncio.sleep(0.5)
        looks.append((await raw.info("commandstats")).get("cmdstat_hmget", {"calls": 0})["calls"])
    assert looks[-1] == 0
    await redis_backend.append(user, "a")
    assert (await asyncio.wait_for(waiting, 60)).pending == 1
    await states.aclose()


async def test_a_watch_ends_where_the_record_is_damaged(redis_backend: Backend, raw: Redis, user: UserKey) -> None:
    states = redis_backend.users.watch(user)
    await soon(states)
    state = redis_backend.settings.redis.prefix + f":{{p{user.partition(4):02d}}}:user:{user.digest}"
    await raw.hset(state, "record", "{")
    await raw.publish(state, "1")
    with pytest.raises(StorageDamaged):
        await soon(states)


async def test_a_lost_notification_is_made_good_by_a_second_look(
    redis_backend: Backend, raw: Redis, user: UserKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_changes, "LONGEST_SILENCE", 0.2)
    states = redis_backend.users.watch(user)
    await soon(states)
    (key,) = [redis_backend.settings.redis.prefix + f":{{p{user.partition(4):02d}}}:user:{user.digest}"]
    await raw.hset(key, mapping={"likes": 5, "version": 1})
    assert (await soon(states)).likes == 5
    await states.aclose()


async def test_a_watch_survives_a_restart_of_redis(
    user: UserKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_changes, "LONGEST_SILENCE", 1000.0)
    server = RedisProcess(tmp_path / "redis")
    server.start()
    backend, other = (open_redis(settings) for settings in [redis_settings(server.url, tmp_path)] * 2)
    try:
        states = backend.users.watch(user)
        await soon(states)
        waiting = asyncio.create_task(anext(states))
        for number in (1, 2):
            await asyncio.to_thread(server.kill if number == 1 else server.stop)
            await asyncio.sleep(0.5)
            await asyncio.to_thread(server.start)
            await other.append(user, str(number))
            assert (await asyncio.wait_for(waiting, 60)).pending == number
            waiting = asyncio.create_task(anext(states))
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    finally:
        await backend.close()
        await other.close()
        await asyncio.to_thread(server.stop)


async def test_closing_ends_every_watch(redis_backend: Backend, user: UserKey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_changes, "LONGEST_SILENCE", 1000.0)  # the next look would end it as well
    states = redis_backend.users.watch(user)
    await soon(states)
    waiting = asyncio.create_task(anext(states))
    await asyncio.sleep(0.05)
    await redis_backend.users.close()
    with pytest.raises(StopAsyncIteration):
        await asyncio.wait_for(waiting, 60)
