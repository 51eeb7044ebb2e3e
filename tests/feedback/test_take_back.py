"""Taking a like back, over memory, Redis and Redis Cluster: what waits is never applied, what was applied is named."""

from __future__ import annotations

import pytest
from papa_serving.contracts.errors import EventNotFound, LineageConflict
from papa_serving.contracts.feedback import FeedbackEvent, UserBatch
from papa_serving.contracts.identity import UserKey

from tests.store.support import Backend, a_revision, image_event


def taking_back(user: UserKey, event_id: str, cancels: str) -> FeedbackEvent:
    return FeedbackEvent(event_id, user, 0.0, cancels=cancels)


async def test_an_event_that_waits_is_never_applied(backend: Backend, user: UserKey) -> None:
    await backend.append(user, "a", "b", "c")
    (result,) = await backend.log.append([taking_back(user, "undo", "b")])
    assert (result.error, result.sequence, result.duplicate) == (None, 4, False)
    lease = await backend.own(user)
    assert [event.event_id for event in await backend.pending(lease, user)] == ["a", "c"]
    state = await backend.users.get(user)
    assert (state.likes, state.pending) == (2, 2)
    await backend.commit(user, 1, lease=lease)


async def test_an_event_that_was_applied_is_named_to_the_trainer(backend: Backend, user: UserKey) -> None:
    await backend.log.append([image_event(user, "a"), image_event(user, "b", -1.0)])
    await backend.commit(user, 1)
    await backend.log.append([taking_back(user, "undo", "b")])
    (event,) = await backend.pending(await backend.own(user), user)
    assert (event.event_id, event.cancels, event.grade, event.sample, event.sequence) == ("undo", 2, 0.0, b"", 3)
    state = await backend.users.get(user)
    assert (state.likes, state.dislikes, state.pending) == (1, 0, 1)


async def test_an_event_in_the_middle_of_an_update_is_not_committed(backend: Backend, user: UserKey) -> None:
    await backend.append(user, "a", "b")
    lease = await backend.own(user)
    batch = UserBatch(user, await backend.pending(lease, user))
    await backend.log.append([taking_back(user, "undo", "a")])
    with pytest.raises(LineageConflict):
        await backend.log.commit(lease, batch, a_revision(1, "", batch))
    assert [event.event_id for event in await backend.pending(lease, user)] == ["b"]


async def test_a_dead_letter_that_is_taken_back_is_gone(backend: Backend, user: UserKey) -> None:
    await backend.append(user, "a")
    lease = await backend.own(user)
    await backend.log.bury(lease, await backend.pending(lease, user), "a test")
    await backend.log.append([taking_back(user, "undo", "a")])
    assert await backend.log.dead_letters(lease.partition) == []
    state = await backend.users.get(user)
    assert (state.likes, state.dead_letters, state.pending) == (0, 0, 0)


async def test_everything_may_be_said_twice_and_in_one_call(backend: Backend, user: UserKey) -> None:
    events = [image_event(user, "a"), taking_back(user, "undo", "a"), image_event(user, "b")]
    first = await backend.log.append(events)
    again = await backend.log.append([*events, taking_back(user, "undo too", "a")])
    assert [result.error for result in (*first, *again)] == [None] * 7
    assert [result.duplicate for result in again] == [True, True, True, False]
    assert [result.sequence for result in first] == [result.sequence for result in again[:3]] == [1, 2, 3]
    assert [event.event_id for event in await backend.pending(await backend.own(user), user)] == ["b"]
    assert (await backend.users.get(user)).likes == 1


async def test_nobody_takes_back_what_is_not_theirs(backend: Backend, user: UserKey) -> None:
    await backend.append(user, "a")
    for event in (taking_back(user, "u", "none"), taking_back(UserKey("shop", "other"), "u", "a")):
        (result,) = await backend.log.append([event])
        assert isinstance(result.error, EventNotFound)
    assert (await backend.users.get(user)).likes == 1
