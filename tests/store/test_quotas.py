"""What one user may have in store: so many revisions, so many items; the oldest go."""

from __future__ import annotations

import pytest
from papa_serving.contracts.errors import ItemNotFound, RevisionNotFound
from papa_serving.contracts.identity import UserKey
from papa_serving.settings import GatewaySettings, Settings, StoreSettings

from tests.store.support import Backend, OpenBackend, an_item, open_redis

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


def test_a_quota_holds_the_items_of_one_generation() -> None:
    with pytest.raises(ValueError, match=r"store\.user_items \(64\) must be at least gateway\.max_count \(65\)"):
        Settings(store=StoreSettings(user_items=64), gateway=GatewaySettings(max_count=65))
