"""A key of another type, as another program or a mended backup leaves it: what meets it is refused and changes nothing.

Redis does not undo what a script has done before it fails.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from papa_serving.contracts.errors import StorageDamaged
from papa_serving.contracts.feedback import UserBatch
from papa_serving.contracts.identity import UserKey
from papa_serving.local.redis_process import RedisProcess
from papa_serving.store.redis_keys import Keys
from redis.asyncio import Redis

from tests.store.support import PARTITIONS, Backend, a_revision, an_item, image_event, open_redis, redis_settings

ALICE = UserKey("shop", "alice")
Change = Callable[[Backend], Awaitable[Any]]


async def append(backend: Backend) -> None:
    (result,) = await backend.log.append([image_event(ALICE, "new")])
    if result.error is not None:
        raise result.error


async def take_back(backend: Backend) -> None:
    (result,) = await backend.log.append([image_event(ALICE, "undo", grade=0.0, image=b"buried")])
    if result.error is not None:
        raise result.error


async def commit(backend: Backend) -> None:
    lease = await backend.own(ALICE)
    batch = UserBatch(ALICE, await backend.pending(lease, ALICE))
    await backend.log.commit(lease, batch, a_revision(2, a_revision(1).name, batch))


async def bury(backend: Backend) -> None:
    lease = await backend.own(ALICE)
    await backend.log.bury(lease, await backend.pending(lease, ALICE), "of no use")


async def retry(backend: Backend) -> None:
    (letter,) = await backend.log.dead_letters(ALICE.partition(PARTITIONS))
    await backend.log.retry_dead_letter(letter)


async def drop(backend: Backend) -> None:
    (letter,) = await backend.log.dead_letters(ALICE.partition(PARTITIONS))
    await backend.log.drop_dead_letter(letter)


CHANGES: dict[str, Change] = {
    "append": append,
    "take an event back": take_back,
    "commit": commit,
    "bury": bury,
    "retry a dead letter": retry,
    "drop a dead letter": drop,
    "adopt": lambda backend: backend.log.adopt(ALICE, a_revision(2, a_revision(1).name)),
    "put items": lambda backend: backend.items.put(ALICE, [an_item("new")]),
    "roll back": lambda backend: backend.users.rollback(ALICE, a_revision(1).name),
    "begin a merge": lambda backend: backend.users.begin_merge(ALICE, UserKey("shop", "bob")),
    "restore": lambda backend: backend.users.restore(ALICE.digest, [a_revision(1)], {"waits"}),
    "delete": lambda backend: backend.users.delete(ALICE),
}
PARTS = ("events", "dead", "state", "pending", "letters", "ids", "older_ids", "lineage", "records", "items", "item")


async def used(backend: Backend) -> None:
    """A user with a revision, an item, a dead letter and an event that waits."""
    await backend.append(ALICE, "learnt")
    await backend.commit(ALICE, 1)
    await backend.append(ALICE, "buried")
    await bury(backend)
    await backend.append(ALICE, "waits")
    await backend.items.put(ALICE, [an_item("old")])


async def contents(raw: Redis, prefix: str) -> dict[bytes, bytes]:
    """Everything but leases, which their owner prolongs, and the answers that are kept for repeated calls."""
    keys = [key async for key in raw.scan_iter(f"{prefix}:*", count=1000)]
    kept = [key for key in keys if not key.endswith(b":lease") and b":call:" not in key]
    return {key: await raw.dump(key) for key in kept}


@pytest.mark.parametrize("part", PARTS)
async def test_whatever_meets_it_changes_nothing(part: str, redis_server: RedisProcess, tmp_path: Path) -> None:
    met = []
    async with Redis.from_url(redis_server.url, protocol=2) as raw:
        for name, change in CHANGES.items():
            backend = open_redis(redis_settings(redis_server.url, tmp_path))
            await used(backend)
            prefix = backend.settings.redis.prefix
            keys = Keys(prefix, PARTITIONS).user(ALICE)
            key = keys.item("new") if part == "item" else getattr(keys, part, None) or getattr(keys.partition, part)
            await raw.delete(key)
            await raw.set(key, "of another program")
            before = await contents(raw, prefix)
            try:
                await change(backend)
            except StorageDamaged:
                met.append(name)
                assert await contents(raw, prefix) == before, name
            await backend.close()
    assert met, "something reads it"
