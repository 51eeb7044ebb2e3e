"""Revisions from elsewhere, committed by the script of every commit."""

from __future__ import annotations

import pytest
from papa_serving.contracts.errors import Fenced, LineageConflict, UserDeleted
from papa_serving.contracts.feedback import Lease, UserBatch
from papa_serving.contracts.identity import UserKey

from tests.store.support import Backend, a_revision


async def test_an_import_is_a_link_of_the_chain(backend: Backend, user: UserKey) -> None:
    await backend.append(user, "a")
    learnt = await backend.commit(user, 1)
    await backend.append(user, "b")
    imported = a_revision(2, learnt.name, UserBatch(user))
    await backend.log.adopt(user, imported)
    state = await backend.users.get(user)
    assert (state.current, state.revisions, state.pending) == (imported, 2, 1)
    assert [each.name for each in await backend.users.lineage(user, 9)] == [imported.name, learnt.name]
    await backend.commit(user, 3, parent=imported.name)
    assert (await backend.users.get(user)).pending == 0


async def test_repeating_an_import_is_harmless(backend: Backend, user: UserKey) -> None:
    imported = a_revision(1, "", UserBatch(user))
    await backend.log.adopt(user, imported)
    await backend.users.reset(user)
    await backend.log.adopt(user, imported)
    state = await backend.users.get(user)
    assert (state.current, state.revisions) == (None, 1)


async def test_whoever_comes_second_is_told(backend: Backend, user: UserKey) -> None:
    await backend.append(user, "a")
    lease = await backend.own(user)
    batch = UserBatch(user, await backend.pending(lease, user))
    await backend.log.adopt(user, a_revision(1, "", UserBatch(user)))
    with pytest.raises(LineageConflict):
        await backend.log.commit(lease, batch, a_revision(2, "", batch))
    with pytest.raises(LineageConflict):
        await backend.log.adopt(user, a_revision(3, "", UserBatch(user)))
    assert (await backend.users.get(user)).pending == 1, "the event waits for the next attempt"


async def test_a_deleted_user_gets_nothing(backend: Backend, user: UserKey) -> None:
    await backend.users.delete(user)
    with pytest.raises(UserDeleted):
        await backend.log.adopt(user, a_revision(1, "", UserBatch(user)))


async def test_without_a_lease_no_event_is_applied(backend: Backend, user: UserKey) -> None:
    """An import needs no lease, but a commit of events does."""
    await backend.append(user, "a")
    batch = UserBatch(user, await backend.pending(await backend.own(user), user))
    with pytest.raises(Fenced):
        await backend.log.commit(Lease(0, "", 0, 0.0), batch, a_revision(1, "", batch))
