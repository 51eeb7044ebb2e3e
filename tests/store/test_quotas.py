"""What one user may have in store: so many revisions, items and event ids; the oldest go."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from papa_serving.contracts.errors import ItemNotFound, RevisionNotFound
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.revisions import Usage
from papa_serving.metrics import QUOTA_EFFECTS
from papa_serving.settings import FeedbackSettings, GatewaySettings, Settings, StoreSettings
from redis.asyncio import Redis

from tests.store.support import PARTITIONS, Backend, OpenBackend, an_item, event_id_quota, image_event, open_redis

THREE = StoreSettings(user_revisions=3)


async def learnt(backend: Backend, user: UserKey, numbers: range, parent: str = "") -> list[str]:
    """Names of revisions, each the child of the one before."""
    lease = await backend.own(user)
    names = []
    for number in numbers:
        await backend.append(user, f"event {number}")
        parent = (await backend.commit(user, number, parent, lease)).name
        names.append(parent)
    return names


async def kept(backend: Backend, user: UserKey) -> list[str]:
    return [revision.name for revision in await backend.users.lineage(user, 100)][::-1]


async def test_the_oldest_revisions_go(open_backend: OpenBackend, user: UserKey) -> None:
    backend = open_backend(store=THREE)
    names = await learnt(backend, user, range(1, 7))
    assert await kept(backend, user) == names[-3:]
    state = await backend.users.get(user)
    assert (state.revisions, state.current and state.current.name) == (6, names[-1])
    with pytest.raises(RevisionNotFound, match=r"newest 3 are kept \(store\.user_revisions\)"):
        await backend.users.rollback(user, names[2])
    assert (await backend.users.rollback(user, names[3])).current is not None


async def test_what_an_update_began_with_stays(open_backend: OpenBackend, user: UserKey) -> None:
    backend = open_backend(store=THREE)
    names = await learnt(backend, user, range(1, 5))
    await backend.users.rollback(user, names[1])
    more = await learnt(backend, user, range(5, 6), names[1])
    assert await kept(backend, user) == [names[1], names[3], *more]


async def test_a_commit_that_is_sent_again_removes_no_more(open_backend: OpenBackend, user: UserKey) -> None:
    backend = open_backend(store=THREE)
    names = await learnt(backend, user, range(1, 4))
    newest = (await backend.users.get(user)).current
    assert newest is not None
    for _ in range(3):
        await backend.log.adopt(user, newest)
    assert await kept(backend, user) == names


async def test_one_users_quota_takes_nothing_from_others(open_backend: OpenBackend, user: UserKey) -> None:
    backend, other = open_backend(store=THREE), UserKey("shop", "other")
    theirs = await learnt(backend, other, range(1, 4))
    await learnt(backend, user, range(1, 7))
    assert await kept(backend, other) == theirs


async def test_the_oldest_items_go(open_backend: OpenBackend, user: UserKey) -> None:
    backend, other = open_backend(store=StoreSettings(user_items=64)), UserKey("shop", "other")
    await backend.items.put(other, [an_item("theirs")])
    for first in range(0, 90, 30):
        await backend.items.put(user, [an_item(f"i{first + number:02d}") for number in range(30)])
    left = {item.item_id for item in await backend.items.of_user(user)}
    assert len(left) == 64
    assert {f"i{number:02d}" for number in range(30, 90)} <= left
    gone = next(f"i{number:02d}" for number in range(30) if f"i{number:02d}" not in left)
    with pytest.raises(ItemNotFound):
        await backend.items.get(user, gone)
    assert await backend.items.get(other, "theirs")
    receipt = await backend.users.delete(user)
    assert receipt is not None and receipt.items == 64


async def test_what_was_just_stored_stays(open_backend: OpenBackend, user: UserKey) -> None:
    backend = open_backend(store=StoreSettings(user_items=64))
    await backend.items.put(user, [an_item(f"i{number:02d}") for number in range(64)])
    await backend.items.put(user, [an_item("i00"), an_item("new")])
    left = {item.item_id for item in await backend.items.of_user(user)}
    assert len(left) == 64
    assert {"i00", "new"} <= left


async def test_what_was_just_stored_stays_where_items_live_shorter_than_before(
    redis_backend: Backend, user: UserKey
) -> None:
    await redis_backend.items.put(user, [an_item(f"i{number:02d}") for number in range(64)])
    later = open_redis(redis_backend.settings.model_copy(update={"store": StoreSettings(item_ttl=60, user_items=64)}))
    await later.items.put(user, [an_item(f"new{number}") for number in range(5)])
    left = {item.item_id for item in await later.items.of_user(user)}
    assert len(left) == 64
    assert {f"new{number}" for number in range(5)} <= left
    await later.close()


def test_a_submission_that_is_sent_again_is_remembered_whole() -> None:
    store = StoreSettings(user_event_ids=4000)
    Settings(store=store, gateway=GatewaySettings(max_events=1000))
    with pytest.raises(ValueError, match=r"\(4000\) .* four times gateway\.max_events \(1001\).* to 4004, .* to 1000"):
        Settings(store=store, gateway=GatewaySettings(max_events=1001))
    with pytest.raises(ValueError, match="greater than or equal to 2048"):
        StoreSettings(user_event_ids=2047)


def test_a_quota_holds_the_items_of_one_generation() -> None:
    with pytest.raises(ValueError, match=r"store\.user_items \(64\) must be at least gateway\.max_count \(65\)"):
        Settings(store=StoreSettings(user_items=64), gateway=GatewaySettings(max_count=65))


def effects(quota: str, effect: str) -> float:
    return sum(
        sample.value
        for family in QUOTA_EFFECTS.collect()
        for sample in family.samples
        if sample.name.endswith("_total") and sample.labels == {"quota": quota, "effect": effect}
    )


async def liked(backend: Backend, user: UserKey, numbers: range) -> None:
    """Events of which none waits any more."""
    await backend.append(user, *(f"e{number}" for number in numbers))
    await backend.commit(user, numbers.stop, (await _current(backend, user)))


async def _current(backend: Backend, user: UserKey) -> str:
    state = await backend.users.get(user)
    return state.current.name if state.current is not None else ""


async def test_one_users_event_ids_are_bounded_and_the_newest_stay_known(
    open_backend: OpenBackend, user: UserKey
) -> None:
    backend = open_backend(store=event_id_quota(20))
    for first in range(0, 200, 5):
        await liked(backend, user, range(first, first + 5))
        assert (await backend.users.usage(user)).event_ids <= 20
    again = await backend.log.append([image_event(user, f"e{number}") for number in range(190, 200)])
    assert [result.duplicate for result in again] == [True] * 10
    assert (await backend.users.get(user)).likes == 200
    (forgotten,) = await backend.log.append([image_event(user, "e0")])
    assert not forgotten.duplicate


async def test_the_id_of_an_event_that_waits_is_never_forgotten(open_backend: OpenBackend, user: UserKey) -> None:
    backend = open_backend(store=event_id_quota(4), feedback=FeedbackSettings(partitions=PARTITIONS, backlog_limit=100))
    for number in range(40):
        await backend.append(user, f"e{number}")
    again = await backend.log.append([image_event(user, f"e{number}") for number in range(40)])
    assert [(result.sequence, result.duplicate) for result in again] == [(number + 1, True) for number in range(40)]
    assert (await backend.users.usage(user)).event_ids <= 100, "the backlog's bound"


async def test_ids_that_a_quota_has_moved_aside_still_expire(redis_backend: Backend, user: UserKey) -> None:
    backend = open_redis(redis_backend.settings.model_copy(update={"store": event_id_quota(4)}))
    await liked(backend, user, range(2))
    assert (await backend.log.append([image_event(user, "e1")]))[0].duplicate
    await liked(backend, user, range(2, 3))
    keys = await _client(backend).keys(f"{backend.settings.redis.prefix}:*ids")
    assert len(keys) == 2
    assert [await _client(backend).pttl(key) > 0 for key in keys] == [True, True]
    await backend.close()


def _client(backend: Backend) -> Any:
    return backend.log._client  # type: ignore[attr-defined]


async def test_usage_counts_what_there_is(open_backend: OpenBackend, user: UserKey) -> None:
    backend = open_backend(store=THREE)
    assert await backend.users.usage(user) == Usage()
    await learnt(backend, user, range(1, 6))
    await backend.items.put(user, [an_item("a"), an_item("b")])
    assert await backend.users.usage(user) == Usage(revisions=3, items=2, event_ids=5)
    await backend.users.delete(user)
    assert await backend.users.usage(user) == Usage()


async def test_what_quotas_remove_and_refuse_is_counted(redis_backend: Backend, user: UserKey) -> None:
    settings = redis_backend.settings.model_copy(
        update={
            "store": event_id_quota(2, user_revisions=2, user_items=64),
            "feedback": FeedbackSettings(partitions=PARTITIONS, backlog_limit=2),
        }
    )
    backend, kinds = open_redis(settings), ("revisions", "items", "event_ids")
    before = [effects(kind, "removed") for kind in kinds]
    refused = effects("pending_events", "refused")
    await learnt(backend, user, range(1, 6))
    for first in (0, 60):
        await backend.items.put(user, [an_item(f"i{first + number}") for number in range(60)])
    assert [effects(kind, "removed") - known for kind, known in zip(kinds, before, strict=True)] == [3, 56, 3]
    results = await backend.log.append([image_event(user, name) for name in ("x", "y")])
    assert [result.error and result.error.reason for result in results] == [None, "USER_BACKLOG_FULL"]
    assert effects("pending_events", "refused") == refused + 1
    await backend.close()


async def test_forgetting_many_ids_does_not_block_redis(redis_backend: Backend, raw: Redis, user: UserKey) -> None:
    """The older ones are unlinked; RENAME alone frees what it overwrites at once."""
    backend = open_redis(redis_backend.settings.model_copy(update={"store": event_id_quota(1200)}))
    async with asyncio.timeout(30):
        while (await raw.info("memory"))["lazyfree_pending_objects"]:  # noqa: ASYNC110 - Redis tells nobody
            await asyncio.sleep(0.01)
        before = (await raw.info("memory"))["lazyfreed_objects"]
        for first in range(0, 1800, 600):
            await liked(backend, user, range(first, first + 600))
        while (await raw.info("memory"))["lazyfreed_objects"] == before:  # noqa: ASYNC110 - Redis tells nobody
            await asyncio.sleep(0.01)
    await backend.close()
