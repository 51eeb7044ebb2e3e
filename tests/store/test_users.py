"""User state over memory and Redis."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from papa_serving.contracts.errors import ItemNotFound, RevisionNotFound, UserDeleted
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.revisions import Revision, Standing, UserState
from papa_serving.settings import StoreSettings

from tests.store.support import PARTITIONS, Backend, OpenBackend, a_revision, an_item


async def three_revisions(backend: Backend, user: UserKey) -> list[str]:
    names = [""]
    for number in (1, 2, 3):
        await backend.append(user, str(number))
        names.append((await backend.commit(user, number, names[-1])).name)
    return names[1:]


async def test_an_unknown_user_is_all_zero(backend: Backend, user: UserKey) -> None:
    assert await backend.users.get(user) == UserState(user)
    assert await backend.users.current(user) is None
    assert await backend.users.lineage(user, 10) == []
    with pytest.raises(RevisionNotFound):
        await backend.users.revision(user, "000001-00000001")


async def listed(backend: Backend, tenant: str = "", limit: int = 100) -> list[UserKey]:
    """All users, page by page."""
    found: list[UserKey] = []
    for partition in range(PARTITIONS):
        page = await backend.users.listed(partition, limit, tenant)
        while page:
            assert len(page) <= limit
            found += page
            page = await backend.users.listed(partition, limit, tenant, page[-1])
    return found


@pytest.mark.parametrize("limit", [1, 2, 100])
async def test_users_who_said_something_or_have_an_adapter_are_listed_once(backend: Backend, limit: int) -> None:
    shop = [UserKey("shop", name) for name in ("a", "b", "ba", "élise", "z{p00}")]
    others = [UserKey("sho", "p a"), UserKey("shop ", "a"), UserKey("shop2", "b")]
    for user in (*shop, *others):
        await backend.append(user, "1", "2")
    await backend.users.get(UserKey("shop", "asked for alone"))
    await backend.items.put(UserKey("shop", "shown alone"), [an_item("i")])
    adopted = UserKey("shop", "adopted")
    await backend.log.adopt(adopted, a_revision(1))
    assert sorted(await listed(backend, "shop", limit)) == sorted([*shop, adopted])
    assert sorted(await listed(backend, limit=limit)) == sorted([*shop, adopted, *others])
    await backend.users.delete(shop[0])
    await backend.append(shop[1], "3")
    assert sorted(await listed(backend, "shop", limit)) == sorted([*shop[1:], adopted])
    assert await listed(backend, "nobody's") == []


async def test_a_page_begins_in_its_own_tenant_whatever_it_is_said_to_follow(backend: Backend) -> None:
    for tenant in ("a", "b", "c"):
        await backend.append(UserKey(tenant, "u"), "1")
    for after in (UserKey("a", "u"), UserKey("", ""), UserKey("b", "")):
        found = [await backend.users.listed(partition, 9, "b", after) for partition in range(PARTITIONS)]
        assert [user for page in found for user in page] == [UserKey("b", "u")]
    beyond = [await backend.users.listed(partition, 9, "b", UserKey("c", "a")) for partition in range(PARTITIONS)]
    assert not any(beyond)


async def test_the_lineage_is_listed_newest_first_in_pages(backend: Backend, user: UserKey) -> None:
    first, second, third = await three_revisions(backend, user)
    assert [r.name for r in await backend.users.lineage(user, 2)] == [third, second]
    assert [r.name for r in await backend.users.lineage(user, 2, before=second)] == [first]
    assert await backend.users.lineage(user, 2, before=first) == []
    with pytest.raises(RevisionNotFound):
        await backend.users.lineage(user, 2, before="000009-00000009")


async def test_rollback_points_at_an_earlier_revision_and_back(backend: Backend, user: UserKey) -> None:
    first, _, third = await three_revisions(backend, user)
    before = await backend.users.get(user)
    state = await backend.users.rollback(user, first)
    assert state == await backend.users.get(user)
    assert state.current is not None
    assert state.current.name == first
    assert (state.revisions, state.version) == (3, before.version + 1)
    assert (await backend.users.rollback(user, third)).current == before.current
    assert len(await backend.users.lineage(user, 10)) == 3


async def test_rollback_to_the_current_revision_changes_nothing(backend: Backend, user: UserKey) -> None:
    *_, third = await three_revisions(backend, user)
    before = await backend.users.get(user)
    assert await backend.users.rollback(user, third) == before


@pytest.mark.parametrize("revision", ["", "base", "000009-00000009", "../1"])
async def test_rollback_needs_a_revision_of_this_user(backend: Backend, user: UserKey, revision: str) -> None:
    await three_revisions(backend, user)
    other = UserKey(user.tenant, "other")
    for key in (user, other):
        before = await backend.users.get(key)
        with pytest.raises(RevisionNotFound):
            await backend.users.rollback(key, revision)
        assert await backend.users.get(key) == before


async def test_reset_points_at_the_base_and_can_be_undone(backend: Backend, user: UserKey) -> None:
    *_, third = await three_revisions(backend, user)
    state = await backend.users.reset(user)
    assert (state.current, state.revisions) == (None, 3)
    assert await backend.users.current(user) is None
    await backend.append(user, "fresh")
    fourth = await backend.commit(user, 4, parent="")
    assert (await backend.users.get(user)).current == fourth
    undone = await backend.users.rollback(user, third)
    assert undone.current is not None
    assert undone.current.name == third


async def test_resetting_who_has_nothing_changes_nothing(backend: Backend, user: UserKey) -> None:
    assert await backend.users.reset(user) == UserState(user)


async def test_deletion_removes_everything_and_says_what(backend: Backend, user: UserKey) -> None:
    await backend.items.put(user, [an_item("i1"), an_item("i2")])
    first, second, _ = await three_revisions(backend, user)
    await backend.append(user, "a", "b", "c")
    lease = await backend.own(user)
    await backend.log.bury(lease, (await backend.pending(lease))[:1], "poison")
    receipt = await backend.users.delete(user)
    assert (receipt.events, receipt.dead_letters, receipt.items, receipt.revisions) == (2, 1, 2, 3)
    assert receipt.receipt_id
    assert receipt.deleted_at > 1e9
    assert await backend.pending(lease) == ()
    assert await backend.users.lineage(user, 10) == []
    with pytest.raises(ItemNotFound):
        await backend.items.get(user, "i1")
    with pytest.raises(RevisionNotFound):
        await backend.users.revision(user, second)
    for attempt in (backend.users.get(user), backend.users.current(user), backend.users.reset(user)):
        with pytest.raises(UserDeleted):
            await attempt
    with pytest.raises(UserDeleted):
        await backend.users.rollback(user, first)
    with pytest.raises(UserDeleted):
        await backend.items.put(user, [an_item("i3")])


async def test_deleting_again_gives_the_first_receipt(backend: Backend, user: UserKey) -> None:
    await backend.append(user, "a")
    assert await backend.users.delete(user) == await backend.users.delete(user)


async def test_deletion_leaves_other_users_alone(backend: Backend, user: UserKey) -> None:
    other = UserKey("other", user.user)
    await backend.items.put(other, [an_item("i1")])
    await backend.append(other, "a")
    await backend.append(user, "a")
    await backend.users.delete(user)
    assert (await backend.users.get(other)).pending == 1
    assert (await backend.items.get(other, "i1")).item_id == "i1"


async def test_a_deleted_id_starts_afresh_after_the_tombstone(open_backend: OpenBackend, user: UserKey) -> None:
    backend = open_backend(store=StoreSettings(tombstone_ttl=0.1))
    await three_revisions(backend, user)
    await backend.users.delete(user)
    await asyncio.sleep(0.2)
    assert await backend.users.get(user) == UserState(user)
    await backend.append(user, "1")
    assert (await backend.commit(user, 1)).first_sequence == 1


async def test_every_change_raises_the_version(backend: Backend, user: UserKey) -> None:
    versions = [(await backend.users.get(user)).version]

    async def note() -> None:
        versions.append((await backend.users.get(user)).version)

    await backend.append(user, "a", "b")
    await note()
    lease = await backend.own(user)
    await backend.log.bury(lease, (await backend.pending(lease))[:1], "poison")
    await note()
    await backend.commit(user, 1)
    await note()
    await backend.users.reset(user)
    await note()
    assert versions == sorted(set(versions))


def a_chain() -> list[Revision]:
    chain: list[Revision] = []
    for number in (1, 2, 4):  # the third was rolled back and is not part of it
        made = a_revision(number, chain[-1].name if chain else "")
        chain.append(replace(made, first_sequence=number, last_sequence=number))
    return chain


async def test_a_lost_lineage_is_restored(backend: Backend, user: UserKey) -> None:
    """For a user of whom Redis knows nothing any more."""
    chain = a_chain()
    assert await backend.users.restore(user.digest, chain, {"1", "2"})
    standing = await backend.users.standing(user.digest)
    assert standing == Standing(revisions=4, lineage=frozenset(each.name for each in chain))
    state = await backend.users.get(user)
    assert (state.current, state.revisions, state.pending) == (chain[-1], 4, 0)
    assert await backend.users.lineage(user, 10) == chain[::-1]
    await backend.append(user, "new")
    (event,) = await backend.pending(await backend.own(user), user)
    assert event.sequence == chain[-1].last_sequence + 1


async def test_a_restored_lineage_takes_the_events_with_it_that_it_has_applied(backend: Backend, user: UserKey) -> None:
    await backend.append(user, "1", "not in the chain", "2", "late")
    before = await backend.users.get(user)
    first, second, third = a_chain()
    chain = [first, second, replace(third, last_sequence=3)]
    assert await backend.users.restore(user.digest, chain, {"1", "2", "late"})
    pending = await backend.pending(await backend.own(user), user)
    assert [event.event_id for event in pending] == ["not in the chain", "late"]
    state = await backend.users.get(user)
    assert (state.pending, state.version) == (2, before.version + 1)


async def test_the_lineage_of_a_deleted_user_is_not_restored(backend: Backend, user: UserKey) -> None:
    await three_revisions(backend, user)
    await backend.users.delete(user)
    assert not await backend.users.restore(user.digest, a_chain(), ())
    assert (await backend.users.standing(user.digest)).lineage == frozenset()
