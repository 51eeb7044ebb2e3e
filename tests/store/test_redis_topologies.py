"""The service's state on a Redis Cluster and behind Sentinels: what the contracts' own tests do not see."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from papa_serving.contracts.errors import StorageUnavailable
from papa_serving.contracts.identity import UserKey
from papa_serving.local.redis_check import check_redis
from papa_serving.store.census import Kind, census, repair
from papa_serving.store.memory import MemoryRevisionStore
from redis.crc import key_slot

from tests.store.redis_nodes import SERVICE, RedisClusterNodes, RedisSentinels, until
from tests.store.support import PARTITIONS, Backend, image_event, open_redis, redis_settings

USERS = [UserKey("shop", str(number)) for number in range(24)]


PATIENCE = 30.0
"""Seconds for a first look: a command to a node that just stepped down may time out before the next is asked."""


async def append_patiently(backend: Backend, user: UserKey, event_id: str) -> None:
    """Retries under the same event id while storage is unavailable, as a caller does."""
    async with asyncio.timeout(60):
        while True:
            try:
                await backend.append(user, event_id)
            except StorageUnavailable:
                await asyncio.sleep(0.1)
            else:
                return


async def test_a_cluster_holds_every_users_events_spread_over_its_nodes(
    redis_cluster: RedisClusterNodes, tmp_path: Path
) -> None:
    before = [node.redirections() for node in redis_cluster.nodes]  # the cluster is other tests' as well
    backend = open_redis(redis_settings(redis_cluster.url, tmp_path))
    results = await backend.log.append([image_event(user, "a") for user in USERS])
    assert [result.error for result in results] == [None] * len(USERS)
    assert await backend.log.news(dict.fromkeys(range(PARTITIONS), "")) == set(range(PARTITIONS))
    leases = [await backend.own(next(u for u in USERS if u.partition(PARTITIONS) == n)) for n in range(PARTITIONS)]
    last = {lease.partition: (await backend.pending(lease))[-1].entry_id for lease in leases}
    assert await backend.log.news(last) == set()
    await backend.append(USERS[0], "b")
    assert await backend.log.news(last) == {USERS[0].partition(PARTITIONS)}
    await backend.close()
    assert [node.redirections() for node in redis_cluster.nodes] == before
    holding = [node.client().dbsize() for node in redis_cluster.nodes]
    owners = {key_slot(f"{{p{number:02d}}}".encode()) * 3 // 16_384 for number in range(PARTITIONS)}
    assert [bool(keys) for keys in holding].count(True) >= len(owners) > 1


async def test_the_census_on_a_cluster_finds_what_redis_lost_and_puts_it_back(
    redis_cluster: RedisClusterNodes, tmp_path: Path
) -> None:
    manifest = b'{"parent": "", "created_at": 1.0, "events": ["a"], "first_sequence": 1, "last_sequence": 1}'
    second = manifest.replace(b'"parent": ""', b'"parent": "000001-aaaaaaaa"')
    store, user = MemoryRevisionStore(), USERS[0]
    await store.put(user, "000001-aaaaaaaa", {"manifest.json": manifest})
    await store.put(user, "000002-aaaaaaaa", {"manifest.json": second})
    backend = open_redis(redis_settings(redis_cluster.url, tmp_path))
    assert [finding.kind async for finding in census(backend.users, store)] == [Kind.LOST]
    assert await repair(backend.users, store) == 1
    current = await backend.users.current(user)
    assert current is not None
    assert current.name == "000002-aaaaaaaa"
    assert [finding async for finding in census(backend.users, store)] == []
    await backend.close()


async def test_a_cluster_that_lost_a_node_goes_on_when_it_is_back(tmp_path: Path) -> None:
    with RedisClusterNodes(tmp_path / "nodes") as nodes:
        backend = open_redis(redis_settings(nodes.url, tmp_path))
        for user in USERS:
            await append_patiently(backend, user, "before")
        states = backend.users.watch(USERS[0])
        await asyncio.wait_for(anext(states), PATIENCE)
        waiting = asyncio.create_task(anext(states))
        await asyncio.sleep(0.2)
        nodes.nodes[0].kill()  # the one at which watchers listen
        writes = [asyncio.create_task(append_patiently(backend, user, "during")) for user in USERS]
        await asyncio.sleep(0.5)
        assert not all(write.done() for write in writes)
        await asyncio.to_thread(nodes.nodes[0].start)
        await asyncio.gather(*writes)
        assert (await asyncio.wait_for(waiting, PATIENCE)).pending == 2
        assert {(await backend.users.get(user)).likes for user in USERS} == {2}
        await states.aclose()
        await backend.close()


@pytest.fixture(scope="module")
def sentinels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisSentinels]:
    with RedisSentinels(tmp_path_factory.mktemp("sentinels")) as servers:
        yield servers


async def test_a_primary_that_was_demoted_is_left(sentinels: RedisSentinels, tmp_path: Path) -> None:
    settings = redis_settings(sentinels.url, tmp_path)
    assert (await asyncio.to_thread(check_redis, settings.redis)).append_only
    backend = open_redis(settings)
    await backend.append(USERS[0], "before")
    with sentinels.sentinel.client() as sentinel:
        sentinel.execute_command("SENTINEL", "FAILOVER", SERVICE)
    await asyncio.to_thread(until, lambda: sentinels.role_of(sentinels.primary) == "slave")
    await append_patiently(backend, USERS[0], "after")
    assert (await backend.users.get(USERS[0])).likes == 2
    await backend.close()


async def test_a_failover_loses_nothing_that_was_replicated(sentinels: RedisSentinels, tmp_path: Path) -> None:
    both = (sentinels.primary, sentinels.replica)
    await asyncio.to_thread(until, lambda: sorted(map(sentinels.role_of, both)) == ["master", "slave"])
    primary, replica = sorted(both, key=sentinels.role_of)
    backend = open_redis(redis_settings(sentinels.url, tmp_path))
    for user in USERS:
        await backend.append(user, "before")
    states = backend.users.watch(USERS[0])
    await asyncio.wait_for(anext(states), PATIENCE)
    waiting = asyncio.create_task(anext(states))
    with primary.client() as client:
        assert await asyncio.to_thread(client.wait, 1, 60_000) == 1
    primary.kill()
    for user in USERS:
        await append_patiently(backend, user, "after")
    assert sentinels.role_of(replica) == "master"
    assert {(await backend.users.get(user)).likes for user in USERS} == {2}
    assert (await asyncio.wait_for(waiting, PATIENCE)).pending == 2
    await states.aclose()
    await backend.close()


def test_every_primary_of_a_cluster_is_checked(redis_cluster: RedisClusterNodes, tmp_path: Path) -> None:
    settings = redis_settings(redis_cluster.url, tmp_path).redis
    assert check_redis(settings).append_only
    with redis_cluster.nodes[2].client() as last:
        last.config_set("maxmemory", "1gb")
        last.config_set("maxmemory-policy", "allkeys-lru")
        try:
            facts = check_redis(settings.model_copy(update={"require_persistence": False}))
        finally:
            last.config_set("maxmemory-policy", "noeviction")
            last.config_set("maxmemory", "0")
    assert (facts.may_evict, facts.policy) == (True, "allkeys-lru")
