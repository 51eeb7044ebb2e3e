"""A Redis user without channel rights, or without scripting: what is written counts, and nobody dies of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from papa_serving.contracts.errors import StorageUnavailable
from papa_serving.contracts.identity import UserKey
from papa_serving.local.redis_check import RIGHTS, check_redis
from papa_serving.local.redis_process import RedisProcess
from redis.asyncio import Redis

from tests.store.redis_nodes import PASSWORD, RedisClusterNodes
from tests.store.support import Backend, an_item, image_event, open_redis, redis_settings, soon

WITHOUT_CHANNELS = "resetchannels ~* +@all"


@pytest.fixture
async def restricted(redis_server: RedisProcess, raw: Redis, tmp_path: Path) -> AsyncIterator[Backend]:
    """Stores of the user `papa`; the test says what that user may do."""
    await raw.execute_command("ACL", "SETUSER", "papa", "reset", "on", ">pass", *WITHOUT_CHANNELS.split())
    backend = open_redis(redis_settings(redis_server.url.replace("unix://", "unix://papa:pass@"), tmp_path))
    yield backend
    await backend.close()
    await raw.execute_command("ACL", "DELUSER", "papa")


async def test_without_channel_rights_every_write_is_answered_as_what_it_did(
    restricted: Backend, user: UserKey
) -> None:
    await restricted.items.put(user, [an_item("shown")])
    await restricted.append(user, "a", "b")
    await restricted.append(user, "a")
    lease = await restricted.own(user)
    first, second = await restricted.pending(lease, user)
    assert (first.event_id, second.event_id) == ("a", "b")
    await restricted.log.bury(lease, [first], "a test")
    (letter,) = await restricted.log.dead_letters(lease.partition)
    assert await restricted.log.retry_dead_letter(letter)
    await restricted.log.bury(lease, (await restricted.pending(lease, user))[:1], "a test")
    (letter,) = await restricted.log.dead_letters(lease.partition)
    assert await restricted.log.drop_dead_letter(letter)
    made = await restricted.commit(user, 1, lease=lease)
    assert (await restricted.users.reset(user)).current is None
    assert (await restricted.users.rollback(user, made.name)).current == made
    state = await restricted.users.get(user)
    assert (state.likes, state.pending, state.dead_letters) == (2, 0, 0)
    assert (await restricted.users.delete(user)).revisions == 1


async def test_a_right_that_is_taken_away_is_an_outage_that_ends(
    restricted: Backend, user: UserKey, raw: Redis
) -> None:
    await raw.execute_command("ACL", "SETUSER", "papa", "-@scripting")
    with pytest.raises(StorageUnavailable, match="evalsha"):
        await restricted.log.append([image_event(user, "a")])
    await raw.execute_command("ACL", "SETUSER", "papa", "+@scripting", "-xadd")
    with pytest.raises(StorageUnavailable, match=r"user executing the script|xadd"):
        await restricted.log.append([image_event(user, "a")])
    await raw.execute_command("ACL", "SETUSER", "papa", "+xadd")
    await restricted.append(user, "a")


async def test_the_documented_rights_are_enough_on_a_cluster(
    redis_cluster: RedisClusterNodes, tmp_path: Path, user: UserKey
) -> None:
    settings = redis_settings(redis_cluster.url.replace(f":{PASSWORD}@", "papa:pass@"), tmp_path)
    for node in redis_cluster.nodes:
        with node.client() as client:
            rights = RIGHTS.format(prefix=settings.redis.prefix)
            client.execute_command("ACL", "SETUSER", "papa", "reset", "on", ">pass", *rights.split())
    check_redis(settings.redis)
    backend = open_redis(settings)
    try:
        states = backend.users.watch(user)
        assert (await soon(states)).likes == 0
        await backend.append(user, "a")
        assert (await soon(states)).likes == 1
        await backend.commit(user, 1)
    finally:
        await backend.close()
