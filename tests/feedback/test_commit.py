"""Reading and the one atomic commit."""

from __future__ import annotations

import pytest
from papa_serving.contracts.errors import LineageConflict, UserDeleted
from papa_serving.contracts.feedback import UserBatch
from papa_serving.contracts.identity import UserKey
from papa_serving.settings import StoreSettings

from tests.store.support import PARTITIONS, Backend, OpenBackend, a_revision


async def test_reading_does_not_consume(backend: Backend, user: UserKey) -> None:
    await backend.append(user, "a", "b", "c")
    lease = await backend.own(user)
    assert await backend.log.read(lease, "", 10) == await backend.log.read(lease, "", 10)
    await backend.log.release(lease)
    other = await backend.own(user, "somebody else")
    assert [event.event_id for event in await backend.log.read(other, "", 10)] == ["a", "b", "c"]


async def test_reading_goes_on_behind_the_last_seen(backend: Backend, user: UserKey) -> None:
    await backend.append(user, *map(str, range(5)))
    lease = await backend.own(user)
    seen, after = [], ""
    while events := await backend.log.read(lease, after, 2):
        seen += [event.event_id for event in events]
        after = events[-1].entry_id
    assert seen == list(map(str, range(5)))
    await backend.append(user, "late")
    assert [event.event_id for event in await backend.log.read(lease, after, 2)] == ["late"]


async def test_reading_goes_on_behind_an_event_that_was_committed(backend: Backend, user: UserKey) -> None:
    await backend.append(user, "a", "b")
    lease = await backend.own(user)
    after = (await backend.pending(lease))[-1].entry_id
    await backend.commit(user, 1, lease=lease)
    await backend.append(user, "c")
    assert [event.event_id for event in await backend.log.read(lease, after, 10)] == ["c"]


async def test_news_names_partitions_with_events_behind_the_last_seen(backend: Backend, user: UserKey) -> None:
    own, other = user.partition(PARTITIONS), (user.partition(PARTITIONS) + 1) % PARTITIONS
    assert await backend.log.news({own: "", other: ""}) == set()
    await backend.append(user, "a")
    assert await backend.log.news({own: "", other: ""}) == {own}
    (event,) = await backend.pending(await backend.own(user))
    assert await backend.log.news({own: event.entry_id, other: ""}) == set()
    assert await backend.log.news({}) == set()
    await backend.append(user, "b")
    assert await backend.log.news({own: event.entry_id}) == {own}


async def test_a_commit_moves_the_pointer_and_removes_the_events(backend: Backend, user: UserKey) -> None:
    other = next(
        o for n in range(99) if (o := UserKey("x", str(n))).partition(PARTITIONS) == user.partition(PARTITIONS)
    )
    await backend.append(user, "a", "b")
    await backend.append(other, "theirs")
    revision = await backend.commit(user, 1)
    state = await backend.users.get(user)
    assert (state.current, state.pending, state.revisions, state.likes) == (revision, 0, 1, 2)
    assert await backend.users.current(user) == revision
    assert await backend.users.revision(user, revision.name) == revision
    (left,) = await backend.pending(await backend.own(user))
    assert left.user == other


async def test_a_part_of_the_events_can_be_committed_and_later_ones_stay(backend: Backend, user: UserKey) -> None:
    await backend.append(user, "a", "b", "c")
    lease = await backend.own(user)
    events = await backend.pending(lease)
    first = UserBatch(user, events[:2])
    assert await backend.log.commit(lease, first, a_revision(1, "", first))
    assert await backend.pending(lease) == events[2:]
    assert (await backend.users.get(user)).pending == 1


async def test_a_lineage_is_a_chain(backend: Backend, user: UserKey) -> None:
    parent = ""
    for number in range(1, 5):
        await backend.append(user, str(number))
        parent = (await backend.commit(user, number, parent)).name
    lineage = await backend.users.lineage(user, 10)
    assert [revision.parent for revision in lineage[:-1]] == [revision.name for revision in lineage[1:]]
    assert lineage[-1].parent == ""
    assert [r.last_sequence for r in lineage] == [4, 3, 2, 1]


async def test_the_parent_must_be_the_pointer(backend: Backend, user: UserKey) -> None:
    await backend.append(user, "a")
    await backend.commit(user, 1)
    await backend.append(user, "b")
    lease = await backend.own(user)
    batch = UserBatch(user, await backend.pending(lease))
    for parent in ("", "000009-00000009"):
        with pytest.raises(LineageConflict):
            await backend.log.commit(lease, batch, a_revision(2, parent, batch))
    assert await backend.pending(lease) == batch.events
    assert (await backend.users.get(user)).revisions == 1


async def test_committing_the_same_revision_again_is_done_and_changes_nothing(backend: Backend, user: UserKey) -> None:
    await backend.append(user, "a")
    lease = await backend.own(user)
    batch = UserBatch(user, await backend.pending(lease))
    revision = a_revision(1, "", batch)
    await backend.log.commit(lease, batch, revision)
    await backend.append(user, "b")
    before = await backend.users.get(user)
    await backend.log.release(lease)
    await backend.own(user, "next owner")
    assert await backend.log.commit(lease, batch, revision)
    assert await backend.users.get(user) == before


async def test_events_are_applied_in_their_order_or_not_at_all(backend: Backend, user: UserKey) -> None:
    await backend.append(user, "a", "b", "c")
    lease = await backend.own(user)
    a, b, c = await backend.pending(lease)
    for events in ((b,), (b, a), (a, c), (a, a)):
        batch = UserBatch(user, events)
        with pytest.raises(LineageConflict):
            await backend.log.commit(lease, batch, a_revision(1, "", batch))
    assert await backend.pending(lease) == (a, b, c)


async def test_events_are_applied_once(backend: Backend, user: UserKey) -> None:
    await backend.append(user, "a")
    lease = await backend.own(user)
    batch = UserBatch(user, await backend.pending(lease))
    await backend.log.commit(lease, batch, a_revision(1, "", batch))
    with pytest.raises(LineageConflict):
        await backend.log.commit(lease, batch, a_revision(2, a_revision(1).name, batch))


async def test_a_revision_without_events_can_be_committed(backend: Backend, user: UserKey) -> None:
    await backend.append(user, "a")
    lease = await backend.own(user)
    await backend.log.commit(lease, UserBatch(user), a_revision(1))
    state = await backend.users.get(user)
    assert state.current is not None
    assert state.pending == 1


async def test_a_commit_cannot_bring_a_deleted_user_back(backend: Backend, user: UserKey) -> None:
    await backend.append(user, "a")
    lease = await backend.own(user)
    batch = UserBatch(user, await backend.pending(lease))
    await backend.users.delete(user)
    with pytest.raises(UserDeleted):
        await backend.log.commit(lease, batch, a_revision(1, "", batch))
    assert await backend.pending(lease) == ()
    assert await backend.users.lineage(user, 10) == []


async def test_a_commit_from_before_a_deletion_is_refused_after_the_tombstone(
    open_backend: OpenBackend, user: UserKey
) -> None:
    backend = open_backend(store=StoreSettings(tombstone_ttl=0.05))
    await backend.append(user, "a")
    lease = await backend.own(user)
    batch = UserBatch(user, await backend.pending(lease))
    await backend.users.delete(user)
    while True:
        try:
            await backend.append(user, "fresh start")
            break
        except AssertionError:
            continue
    with pytest.raises(LineageConflict):
        await backend.log.commit(lease, batch, a_revision(1, "", batch))
    assert (await backend.users.get(user)).current is None


async def test_a_rollback_during_an_update_is_a_conflict_and_the_next_parent(backend: Backend, user: UserKey) -> None:
    await backend.append(user, "a")
    first = await backend.commit(user, 1)
    await backend.append(user, "b")
    second = await backend.commit(user, 2, first.name)
    await backend.append(user, "c")
    lease = await backend.own(user)
    batch = UserBatch(user, await backend.pending(lease))
    await backend.users.rollback(user, first.name)
    with pytest.raises(LineageConflict):
        await backend.log.commit(lease, batch, a_revision(3, second.name, batch))
    state = await backend.users.get(user)
    assert state.revisions == 2
    await backend.log.commit(lease, batch, a_revision(state.revisions + 1, first.name, batch))
    assert [r.name[:6] for r in await backend.users.lineage(user, 9)] == ["000003", "000002", "000001"]


async def test_attempts_are_counted_for_the_next_owner_too(backend: Backend, user: UserKey) -> None:
    await backend.append(user, "a", "b")
    lease = await backend.own(user)
    a, b = await backend.pending(lease)
    assert await backend.log.begin_attempt(lease, UserBatch(user, (a, b))) == (1, 1)
    assert await backend.log.begin_attempt(lease, UserBatch(user, (a,))) == (2,)
    await backend.log.release(lease)
    other = await backend.own(user, "next owner")
    assert [event.attempts for event in await backend.pending(other)] == [2, 1]
    assert await backend.log.begin_attempt(other, UserBatch(user, (a, b))) == (3, 2)


async def test_attempts_at_events_that_are_gone_are_none(backend: Backend, user: UserKey) -> None:
    await backend.append(user, "a")
    lease = await backend.own(user)
    batch = UserBatch(user, await backend.pending(lease))
    await backend.users.delete(user)
    assert await backend.log.begin_attempt(lease, batch) == (0,)
