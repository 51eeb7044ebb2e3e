"""A Redis that is full refuses new work with a typed error, and lets the old be done."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Literal

import pytest
from papa_serving.contracts.errors import StorageDamaged, StorageUnavailable
from papa_serving.contracts.feedback import UserBatch
from papa_serving.contracts.identity import UserKey
from papa_serving.local.redis_process import RedisProcess
from papa_serving.store.redis_client import call
from redis.asyncio import Redis

from tests import absent
from tests.store.support import PARTITIONS, Backend, a_revision, an_item, image_event, open_redis, redis_settings


@pytest.fixture
async def backend(tmp_path: Path) -> AsyncIterator[Backend]:
    with RedisProcess(tmp_path / "redis") as server:
        backend = open_redis(redis_settings(server.url, tmp_path))
        yield backend
        await backend.close()


@pytest.fixture
async def server(backend: Backend) -> AsyncIterator[Redis]:
    async with Redis.from_url(backend.settings.redis.url, protocol=2) as client:
        yield client


async def test_a_full_redis_takes_no_events_and_no_items_until_there_is_room(
    backend: Backend, server: Redis, user: UserKey
) -> None:
    await backend.append(user, "a")
    await server.config_set("maxmemory", 1)
    before = await backend.users.get(user)
    others = [UserKey("shop", str(n)) for n in range(20)]
    for refused in (
        backend.log.append([image_event(user, "b")]),
        backend.log.append([image_event(other, "b") for other in others]),
        backend.items.put(user, [an_item("i1")]),
    ):
        with pytest.raises(StorageUnavailable) as caught:
            await refused
        assert caught.value.retry_after
    assert await backend.users.get(user) == before
    await server.config_set("maxmemory", 0)
    await backend.append(user, "b")
    assert [event.event_id for event in await backend.pending(await backend.own(user), user)] == ["a", "b"]


async def test_a_full_redis_can_be_drained(backend: Backend, server: Redis, user: UserKey) -> None:
    await backend.append(user, "a", "b", "c")
    await server.config_set("maxmemory", 1)
    assert await backend.log.heartbeat("trainer", 30) == ["trainer"]
    lease = await backend.own(user)
    lease = await backend.log.renew(lease, 30)
    a, b, c = await backend.pending(lease)
    assert await backend.log.begin_attempt(lease, UserBatch(user, (a, b))) == (1, 1)
    batch = UserBatch(user, (a, b))
    await backend.log.commit(lease, batch, a_revision(1, "", batch))
    await backend.log.bury(lease, [c], "poison")
    assert (await backend.users.get(user)).pending == 0
    assert (await backend.log.stats(user.partition(PARTITIONS))).dead_letters == 1
    await backend.users.reset(user)
    assert (await backend.users.rollback(user, a_revision(1).name)).current is not None
    await backend.log.release(lease)
    assert (await backend.users.delete(user)).dead_letters == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk]
    mounted = subprocess.run(command, check=False, capture_output=True)
    if mounted.returncode:
        absent.skip(f"mounting a small file system needs root ({mounted.stderr.decode().strip()})", "sudo make test")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


@pytest.mark.parametrize("appendfsync", ["everysec", "always"])
async def test_a_full_disk_takes_no_events_until_there_is_room(
    small_disk: Path, tmp_path: Path, user: UserKey, appendfsync: Literal["everysec", "always"]
) -> None:
    """With `always` Redis ends itself rather than acknowledge what it cannot write; its keeper starts it again."""
    with RedisProcess(small_disk / "redis", appendfsync=appendfsync) as server:
        backend = open_redis(redis_settings(server.url, tmp_path))
        await backend.append(user, "first")
        filler = small_disk / "filler"
        with pytest.raises(OSError, match="No space left"), filler.open("wb", buffering=0) as file:
            while file.write(b"x" * 4096) == 4096:
                pass
        accepted = ["first"]
        with pytest.raises(StorageUnavailable) as caught:
            for number in range(2_000):
                await backend.append(user, f"{number}")
                accepted.append(f"{number}")
        assert caught.value.retry_after
        filler.unlink()
        async with asyncio.timeout(60):
            while True:
                try:
                    await backend.append(user, "last")
                except StorageUnavailable:
                    if not server.running:
                        assert appendfsync == "always"
                        await asyncio.to_thread(server.stop)
                        await asyncio.to_thread(server.start)
                    await asyncio.sleep(0.05)
                else:
                    break
        found = [event.event_id for event in await backend.pending(await backend.own(user), user)]
        await backend.close()
    refused = f"{len(accepted) - 1}"
    assert found in ([*accepted, "last"], [*accepted, refused, "last"]), (
        "a refusal by a lost connection may have arrived"
    )


async def test_a_server_that_forgot_the_scripts_learns_them_again(backend: Backend, server: Redis) -> None:
    users = [UserKey("shop", str(n)) for n in range(20)]
    for n in range(3):
        await server.script_flush()
        results = await backend.log.append([image_event(user, str(n)) for user in users])
        assert [result.sequence for result in results] == [n + 1] * 20
        await backend.log.stats(0)


async def test_a_command_that_redis_never_accepts_is_a_fault_and_not_an_outage(backend: Backend) -> None:
    client = Redis.from_url(backend.settings.redis.url, protocol=2)
    with pytest.raises(StorageDamaged, match="NOSUCHCOMMAND"):
        await call(client, "NOSUCHCOMMAND")
    await client.aclose()
