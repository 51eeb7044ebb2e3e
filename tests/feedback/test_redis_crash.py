"""A killed Redis loses nothing that it acknowledged, whichever way it synchronises its append-only file."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Literal

import pytest
from papa_serving.contracts.errors import StorageUnavailable
from papa_serving.contracts.feedback import UserBatch
from papa_serving.contracts.identity import UserKey
from papa_serving.local.redis_process import RedisProcess

from tests.store.support import PARTITIONS, Backend, a_revision, image_event, open_redis, redis_settings

WRITERS = 6


async def write_until_it_fails(
    backend: Backend, user: UserKey, acknowledged: list[str], warmed_up: asyncio.Event
) -> None:
    for n in range(100_000):
        try:
            (result,) = await backend.log.append([image_event(user, str(n))])
        except StorageUnavailable:
            return
        assert result.error is None
        acknowledged.append(result.event_id)
        if n == 50:
            warmed_up.set()


@pytest.mark.parametrize("appendfsync", ["everysec", "always"])
async def test_acknowledged_events_survive_a_kill(appendfsync: Literal["everysec", "always"], tmp_path: Path) -> None:
    users = [UserKey("shop", str(n)) for n in range(WRITERS)]
    acknowledged: dict[UserKey, list[str]] = {user: [] for user in users}
    server = RedisProcess(tmp_path / "redis", appendfsync=appendfsync)
    server.start()
    backend = open_redis(redis_settings(server.url, tmp_path))
    try:
        warmed_up = asyncio.Event()
        writers = [
            asyncio.create_task(write_until_it_fails(backend, user, acknowledged[user], warmed_up)) for user in users
        ]
        await asyncio.wait_for(warmed_up.wait(), 60)
        await asyncio.to_thread(server.kill)
        await asyncio.gather(*writers)
        await asyncio.to_thread(server.start)
        for user in users:
            events = await backend.pending(await backend.own(user), user)
            kept = [event.event_id for event in events]
            assert kept[: len(acknowledged[user])] == acknowledged[user]
            assert len(kept) <= len(acknowledged[user]) + 1  # the one whose answer did not arrive
            assert [event.sequence for event in events] == list(range(1, len(events) + 1))
            assert (await backend.users.get(user)).pending == len(events)
    finally:
        await backend.close()
        await asyncio.to_thread(server.stop)


async def test_everything_else_that_was_acknowledged_survives_a_kill_too(tmp_path: Path) -> None:
    user = UserKey("shop", "someone")
    server = RedisProcess(tmp_path / "redis")
    server.start()
    backend = open_redis(redis_settings(server.url, tmp_path))
    try:
        await backend.append(user, "a", "b", "c", "d")
        lease = await backend.own(user)
        a, b, c, d = await backend.pending(lease)
        await backend.log.begin_attempt(lease, UserBatch(user, (a,)))
        await backend.log.commit(lease, UserBatch(user, (a,)), a_revision(1, "", UserBatch(user, (a,))))
        await backend.log.bury(lease, [b], "poison")
        await backend.log.begin_attempt(lease, UserBatch(user, (c, d)))
        state = await backend.users.get(user)
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        assert await backend.users.get(user) == state
        assert (await backend.log.renew(lease, 30)).epoch == lease.epoch
        assert [(event.event_id, event.attempts) for event in await backend.pending(lease)] == [("c", 1), ("d", 1)]
        assert [letter.event.event_id for letter in await backend.log.dead_letters(lease.partition)] == ["b"]
        assert await backend.log.stats(user.partition(PARTITIONS))
    finally:
        await backend.close()
        await asyncio.to_thread(server.stop)


async def test_a_redis_that_is_away_is_one_typed_error_and_comes_back(tmp_path: Path) -> None:
    user = UserKey("shop", "someone")
    server = RedisProcess(tmp_path / "redis")
    server.start()
    backend = open_redis(redis_settings(server.url, tmp_path))
    try:
        await backend.append(user, "a")
        await asyncio.to_thread(server.stop)
        for call in (
            backend.log.append([image_event(user, "b")]),
            backend.log.stats(0),
            backend.users.get(user),
            backend.items.get(user, "x"),
            backend.items.backbone_info(),
        ):
            with pytest.raises(StorageUnavailable) as caught:
                await call
            assert caught.value.retry_after
        await asyncio.to_thread(server.start)
        await backend.append(user, "b")
        assert (await backend.users.get(user)).pending == 2
    finally:
        await backend.close()
        await asyncio.to_thread(server.stop)
