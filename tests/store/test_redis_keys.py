"""Redis contains only documented keys, each in its partition's slot, and no key of a deleted user."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from papa_serving.catalogue import open_catalogues
from papa_serving.contracts.attribution import Attribution, Count
from papa_serving.contracts.catalogue import CatalogueItem, CatalogueKey
from papa_serving.contracts.feedback import FeedbackEvent, UserBatch
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.items import BackboneInfo
from papa_serving.store import redis_keys
from redis.asyncio import Redis
from redis.crc import key_slot

from tests.store.support import PARTITIONS, Backend, an_item, image_event

NEVER = -1
"""What PTTL says of a key that does not expire."""


async def fill(backend: Backend, user: UserKey) -> None:
    """Touches every kind of key."""
    await backend.items.publish_backbone(BackboneInfo("ab" * 32, "name", (1, 28, 28)))
    await backend.items.put(user, [an_item("i1")])
    await backend.append(user, "a")
    await backend.commit(user, 1)
    await backend.append(user, "b", "c")
    lease = await backend.own(user)
    await backend.log.begin_attempt(lease, UserBatch(user, await backend.pending(lease)))
    await backend.log.bury(lease, (await backend.pending(lease))[:1], "poison")
    await backend.log.heartbeat("trainer", 30)
    await backend.seen.add(user, CatalogueKey(user.tenant, "summer"), ["shoe"])
    await backend.activity.add(user, "impression", b"{}")
    await backend.activity.add(user, "event", b"{}")
    await backend.activity.count(user, {"arm": Count(shown=1)})
    await backend.log.append([FeedbackEvent("view", user, 0.0, item_id="i1", attribution=Attribution("view"))])
    catalogues = open_catalogues(backend.settings)
    embedding = np.ones(2, "<f2").tobytes()
    await catalogues.put(CatalogueKey(user.tenant, "summer"), CatalogueItem("shoe", embedding, "encoder"))
    await catalogues.close()


async def keys_of(backend: Backend, raw: Redis) -> list[str]:
    return [key.decode() async for key in raw.scan_iter(match=f"{backend.settings.redis.prefix}:*")]


async def test_every_key_is_documented(redis_backend: Backend, raw: Redis, user: UserKey) -> None:
    await fill(redis_backend, user)
    documented = [
        re.sub(r"NN", r"\\d+", re.sub(r":D\b", ":[0-9a-f]{32}", re.sub(r"TOKEN|ID$", ".+", name)))
        .replace("{p", r"\{p")
        .replace("{cC}", r"\{c[0-9a-f]{32}\}")
        for name in re.findall(r"^    papa:(\S+)", redis_keys.__doc__ or "", re.MULTILINE)
    ]
    kinds = set()
    for key in await keys_of(redis_backend, raw):
        name = key.partition(":")[2]
        matching = [pattern for pattern in documented if re.fullmatch(pattern, name)]
        assert matching, key
        kinds.update(matching)
    older_ids = {pattern for pattern in documented if pattern.endswith("older_ids")}
    assert kinds == set(documented) - older_ids


async def test_the_keys_of_a_partition_share_a_slot_of_redis_cluster(
    redis_backend: Backend, raw: Redis, user: UserKey
) -> None:
    await fill(redis_backend, user)
    tag = f"{{p{user.partition(PARTITIONS):02d}}}"
    keys = [key for key in await keys_of(redis_backend, raw) if "{p" in key]
    assert len(keys) >= 10
    assert {key_slot(key.encode()) for key in keys} == {key_slot(tag.encode())}


async def test_nothing_of_a_deleted_user_is_left_but_the_tombstone(
    redis_backend: Backend, raw: Redis, user: UserKey
) -> None:
    await fill(redis_backend, user)
    await redis_backend.users.delete(user)
    left = [key for key in await keys_of(redis_backend, raw) if user.digest in key]
    assert left == [f"{redis_backend.settings.redis.prefix}:{{p{user.partition(PARTITIONS):02d}}}:user:{user.digest}"]
    assert await raw.hkeys(left[0]) == [b"deleted"]
    assert 0 < await raw.pttl(left[0]) <= 86_400_000
    for key in await keys_of(redis_backend, raw):
        if await raw.type(key) == b"stream":
            assert await raw.xlen(key) == 0
            for group in await raw.xinfo_groups(key):
                assert group["pending"] == 0


async def test_committed_events_leave_nothing_in_the_group(redis_backend: Backend, raw: Redis, user: UserKey) -> None:
    await redis_backend.append(user, "a", "b")
    lease = await redis_backend.own(user)
    await redis_backend.log.begin_attempt(lease, UserBatch(user, await redis_backend.pending(lease)))
    await redis_backend.commit(user, 1, lease=lease)
    (stream,) = [key for key in await keys_of(redis_backend, raw) if key.endswith(":events")]
    (group,) = await raw.xinfo_groups(stream)
    assert (group["name"], group["pending"]) == (redis_keys.GROUP.encode(), 0)


async def test_what_should_expire_does(redis_backend: Backend, raw: Redis, user: UserKey) -> None:
    await fill(redis_backend, user)
    expiring = [key for key in await keys_of(redis_backend, raw) if await raw.pttl(key) > 0]
    assert {re.sub(r".*\}:(user:[0-9a-f]+:)?(\w+).*", r"\2", key) for key in expiring} == {
        "attributed",
        "call",
        "counts",
        "impressions",
        "item",
        "items",
        "noted_ids",
        "seen",
        "sums",
    }


@pytest.mark.parametrize("leaves", ["applied", "buried", "taken back", "restored"])
async def test_event_ids_expire_once_no_event_of_the_user_waits(
    redis_backend: Backend, raw: Redis, user: UserKey, leaves: str
) -> None:
    await redis_backend.append(user, "a")
    parent = (await redis_backend.commit(user, 1)).name
    (state,) = [key for key in await keys_of(redis_backend, raw) if key.endswith(user.digest)]
    await raw.hset(state, "ids_since", "0")
    await redis_backend.append(user, "b")
    kinds = [f"{state}:ids", f"{state}:older_ids"]
    assert [await raw.pttl(key) for key in kinds] == [NEVER, NEVER]
    if leaves == "applied":
        await redis_backend.commit(user, 2, parent)
    elif leaves == "buried":
        lease = await redis_backend.own(user)
        await redis_backend.log.bury(lease, await redis_backend.pending(lease), "poison")
    elif leaves == "restored":
        first = await redis_backend.users.revision(user, parent)
        lost = replace(first, name=f"000002-{'b' * 12}", parent=parent, last_sequence=2)
        assert await redis_backend.users.restore(user.digest, [lost], {"b"})
    else:
        await redis_backend.log.append([FeedbackEvent("undo", user, 0.0, cancels="b")])
    one_time_to_live = redis_backend.settings.store.event_id_ttl * 1000
    assert all([0 < await raw.pttl(key) <= one_time_to_live for key in kinds])
    if leaves == "buried":
        (letter,) = await redis_backend.log.dead_letters(lease.partition)
        assert await redis_backend.log.retry_dead_letter(letter)
        assert [await raw.pttl(key) for key in kinds] == [NEVER, NEVER]


async def test_event_ids_that_moved_aside_are_still_known(redis_backend: Backend, raw: Redis, user: UserKey) -> None:
    await redis_backend.append(user, "before")
    await redis_backend.commit(user, 1)
    (state,) = [key for key in await keys_of(redis_backend, raw) if key.endswith(user.digest)]
    one_time_to_live = 1 + round(redis_backend.settings.store.event_id_ttl * 1000)
    await raw.hincrby(state, "ids_since", -one_time_to_live)
    await redis_backend.append(user, "after")
    assert await raw.hkeys(f"{state}:older_ids") == [b"before"]
    assert await raw.hkeys(f"{state}:ids") == [b"after"]
    again = await redis_backend.log.append([image_event(user, name) for name in ("before", "after")])
    assert [(result.sequence, result.duplicate) for result in again] == [(1, True), (2, True)]
    for key in (f"{state}:ids", f"{state}:older_ids"):
        assert await raw.pttl(key) == NEVER
    await redis_backend.users.delete(user)
    assert not await raw.exists(f"{state}:ids", f"{state}:older_ids")
