"""What was recommended lately, over memory and Redis: a window that is bounded, expires, and goes with its user."""

from __future__ import annotations

import asyncio

import pytest
from papa_serving.contracts.catalogue import CatalogueKey
from papa_serving.contracts.errors import UserDeleted
from papa_serving.contracts.identity import UserKey
from papa_serving.settings import StoreSettings
from redis.asyncio import Redis

from tests.store.support import Backend, OpenBackend

SUMMER, WINTER = CatalogueKey("shop", "summer"), CatalogueKey("shop", "summer sale")


async def test_what_was_recommended_is_remembered_for_its_user_and_catalogue(backend: Backend, user: UserKey) -> None:
    strange = "a b{c}:'\"\u65e5\u672c"
    assert await backend.seen.of_user(user, SUMMER) == frozenset()
    await backend.seen.add(user, SUMMER, ["a", strange])
    await backend.seen.add(user, WINTER, ["b"])
    await backend.seen.add(user, SUMMER, [])
    assert await backend.seen.of_user(user, SUMMER) == {"a", strange}
    assert await backend.seen.of_user(user, WINTER) == {"b"}
    for other in (UserKey(user.tenant, "other"), UserKey("other", user.user)):
        assert await backend.seen.of_user(other, SUMMER) == frozenset()


async def test_of_two_calls_at_once_one_gets_each_item(backend: Backend, user: UserKey) -> None:
    names = [f"i{number}" for number in range(20)]
    calls = [backend.seen.add(user, SUMMER, names[start : start + 12]) for start in (0, 4, 8, 0)]
    shares = await asyncio.gather(*calls)
    assert sorted(name for share in shares for name in share) == sorted(names)
    assert await backend.seen.add(user, SUMMER, names) == frozenset()
    assert await backend.seen.add(user, WINTER, ["i0"]) == {"i0"}, "another catalogue's item of the same name"


async def test_the_window_keeps_the_newest(open_backend: OpenBackend, user: UserKey) -> None:
    backend = open_backend(store=StoreSettings(user_seen=3))
    for names in (["a"], ["b"], ["c"], ["a"], ["d"]):
        await backend.seen.add(user, SUMMER, names)
        await asyncio.sleep(0.002)  # Redis orders by the millisecond
    assert await backend.seen.of_user(user, SUMMER) == {"c", "a", "d"}


async def test_the_window_expires(open_backend: OpenBackend, user: UserKey) -> None:
    backend = open_backend(store=StoreSettings(seen_ttl=0.5))
    await backend.seen.add(user, SUMMER, ["a"])
    async with asyncio.timeout(60):
        while await backend.seen.of_user(user, SUMMER):  # noqa: ASYNC110 - nobody tells of an expiry
            await asyncio.sleep(0.02)
    assert await backend.seen.add(user, SUMMER, ["a"]) == {"a"}, "it may be recommended again"
    await backend.seen.add(user, SUMMER, ["b"])
    assert await backend.seen.of_user(user, SUMMER) <= {"a", "b"}


async def test_it_goes_with_its_user_and_does_not_come_back(backend: Backend, user: UserKey) -> None:
    await backend.seen.add(user, SUMMER, ["a"])
    await backend.users.delete(user)
    assert await backend.seen.of_user(user, SUMMER) == frozenset()
    with pytest.raises(UserDeleted):
        await backend.seen.add(user, SUMMER, ["b"])
    assert await backend.seen.of_user(user, SUMMER) == frozenset()


@pytest.mark.redis
async def test_nothing_of_it_stays_in_redis(redis_backend: Backend, raw: Redis, user: UserKey) -> None:
    await redis_backend.seen.add(user, SUMMER, ["a"])
    start = f"{redis_backend.settings.redis.prefix}:*seen"
    (key,) = [key async for key in raw.scan_iter(start)]
    assert 0 < await raw.pttl(key) <= 86_400_000
    await redis_backend.users.delete(user)
    assert [key async for key in raw.scan_iter(start)] == []
