"""Watching a user over memory and Redis: told of changes, not asking for them."""

from __future__ import annotations

import asyncio

import pytest
from papa_serving.contracts.errors import UserDeleted
from papa_serving.contracts.identity import UserKey
from papa_serving.store import redis_changes

from tests.store.support import Backend, soon


@pytest.fixture(autouse=True)
def no_second_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_changes, "LONGEST_SILENCE", 1000.0)


async def test_a_watcher_sees_the_state_and_then_each_change(backend: Backend, user: UserKey) -> None:
    states = backend.users.watch(user)
    assert (await soon(states)).version == 0
    await backend.append(user, "a", "b")
    assert (await soon(states)).pending == 2
    revision = await backend.commit(user, 1)
    assert (await soon(states)).current == revision
    await backend.users.reset(user)
    assert (await soon(states)).current is None
    await states.aclose()


async def test_a_change_between_two_looks_is_not_lost(backend: Backend, user: UserKey) -> None:
    states = backend.users.watch(user)
    await soon(states)
    for n in range(20):
        await backend.append(user, str(n))
    seen = 0
    while seen < 20:
        seen = (await soon(states)).pending
    await states.aclose()


async def test_watchers_hear_of_their_user_only(backend: Backend, user: UserKey) -> None:
    other = UserKey(user.tenant, "other")
    mine, mine_too, theirs = (backend.users.watch(key) for key in (user, user, other))
    for states in (mine, mine_too, theirs):
        await soon(states)
    await backend.append(user, "a")
    assert (await soon(mine)).pending == (await soon(mine_too)).pending == 1
    await mine.aclose()
    await backend.append(user, "b")
    assert (await soon(mine_too)).pending == 2
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(theirs), 0.2)
    await mine_too.aclose()
    await theirs.aclose()


async def test_watching_again_after_leaving_works(backend: Backend, user: UserKey) -> None:
    for n in range(3):
        states = backend.users.watch(user)
        assert (await soon(states)).pending == n
        await backend.append(user, str(n))
        assert (await soon(states)).pending == n + 1
        await states.aclose()


async def test_a_channel_left_and_taken_again_beside_another_still_tells(backend: Backend, user: UserKey) -> None:
    other = backend.users.watch(UserKey(user.tenant, "other"))
    await soon(other)
    for n in range(20):
        states = backend.users.watch(user)
        await soon(states)
        await backend.append(user, str(n))
        assert (await soon(states)).pending == n + 1
        await states.aclose()
    await other.aclose()


async def test_a_deletion_ends_the_watch(backend: Backend, user: UserKey) -> None:
    states = backend.users.watch(user)
    await soon(states)
    await backend.users.delete(user)
    with pytest.raises(UserDeleted):
        await soon(states)


async def test_many_watchers_share_what_they_hear(backend: Backend) -> None:
    users = [UserKey("shop", str(n)) for n in range(50)]
    watches = [backend.users.watch(user) for user in users]
    for states in watches:
        await soon(states)
    for user in users:
        await backend.append(user, "a")
    for states in watches:
        assert (await soon(states)).pending == 1
        await states.aclose()
