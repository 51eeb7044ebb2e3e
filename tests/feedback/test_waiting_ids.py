"""The id of an event that waits stays known, whatever its time to live and the user's quota of event ids are."""

from __future__ import annotations

import asyncio
from itertools import count
from random import Random

import pytest
from papa_serving.contracts.errors import EventNotFound, UserBacklogFull
from papa_serving.contracts.feedback import AppendResult, DeadLetter, FeedbackEvent, LoggedEvent
from papa_serving.contracts.identity import UserKey
from papa_serving.settings import FeedbackSettings, StoreSettings

from tests.store.support import PARTITIONS, Backend, OpenBackend, event_id_quota, image_event

BACKLOG = 100
SHORT = 0.02
"""Seconds for which ids are remembered, where time is to pass."""


def small(open_backend: OpenBackend, event_ids: int) -> Backend:
    feedback = FeedbackSettings(partitions=PARTITIONS, backlog_limit=BACKLOG)
    return open_backend(store=event_id_quota(event_ids), feedback=feedback)


def taking_back(user: UserKey, event_id: str) -> FeedbackEvent:
    return FeedbackEvent(f"undo {event_id}", user, 0.0, cancels=event_id)


def sent_again(user: UserKey, event_id: str) -> FeedbackEvent:
    label = event_id.removeprefix("undo ")
    return image_event(user, label) if label == event_id else taking_back(user, label)


def labels(events: list[LoggedEvent]) -> list[str]:
    return [event.event_id for event in events if not event.cancels]


async def waiting(backend: Backend, user: UserKey) -> list[LoggedEvent]:
    return await backend.log.pending(user, limit=10_000)


async def again(backend: Backend, user: UserKey, *event_ids: str) -> list[tuple[int, bool]]:
    results = await backend.log.append([image_event(user, event_id) for event_id in event_ids])
    return [(result.sequence, result.duplicate) for result in results]


async def buried(backend: Backend, user: UserKey) -> DeadLetter:
    """The user's oldest event as a dead letter."""
    lease = await backend.own(user)
    await backend.log.bury(lease, (await backend.pending(lease, user))[:1], "a test")
    return (await backend.log.dead_letters(lease.partition))[-1]


async def forgotten(backend: Backend, user: UserKey, *event_ids: str) -> None:
    """Events that are applied, so many that nothing before them stays known."""
    for event_id in event_ids:
        await backend.append(user, event_id)
        state = await backend.users.get(user)
        parent = state.current.name if state.current is not None else ""
        await backend.commit(user, state.revisions + 1, parent)


async def test_time_forgets_no_event_that_waits(open_backend: OpenBackend, user: UserKey) -> None:
    """Neither while others come, which sets older ids aside, nor while none comes, when keys expire."""
    backend = open_backend(store=StoreSettings(event_id_ttl=SHORT))
    await backend.append(user, "applied")
    parent = (await backend.commit(user, 1)).name
    await backend.append(user, "old")
    for number in range(4):
        await asyncio.sleep(2 * SHORT)
        await backend.append(user, f"e{number}")
    assert await again(backend, user, "old", "e0", "e3") == [(2, True), (3, True), (6, True)]
    await asyncio.sleep(4 * SHORT)
    assert await again(backend, user, "old", "e0", "e3") == [(2, True), (3, True), (6, True)]
    await backend.log.append([taking_back(user, "old")])
    assert labels(await waiting(backend, user)) == ["e0", "e1", "e2", "e3"]
    await backend.commit(user, 2, parent)
    while await again(backend, user, "old") == [(2, True)]:  # noqa: ASYNC110 - nobody tells of an expiry
        await asyncio.sleep(SHORT)


async def test_taking_back_forgets_no_event_that_waits(open_backend: OpenBackend, user: UserKey) -> None:
    """Each writes two ids while one event fewer waits."""
    backend = small(open_backend, 20)
    await backend.append(user, *(f"e{number}" for number in range(10)))
    for number in range(5):
        await backend.log.append([taking_back(user, f"e{number}")])
    await backend.append(user, "next", "next but one")
    left = [f"e{number}" for number in range(5, 10)]
    assert await again(backend, user, *left) == [(number, True) for number in range(6, 11)]
    for result in await backend.log.append([taking_back(user, event_id) for event_id in left]):
        assert result.error is None
    assert [event.event_id for event in await waiting(backend, user)] == ["next", "next but one"]


async def test_ids_stay_bounded_while_an_old_event_waits(open_backend: OpenBackend, user: UserKey) -> None:
    backend, results = small(open_backend, 4), list[AppendResult]()
    await backend.append(user, "old", "old too", "e")
    for number in range(BACKLOG):
        results += await backend.log.append([image_event(user, f"e{number}"), taking_back(user, f"e{number}")])
    assert isinstance(results[-1].error, UserBacklogFull)
    assert {type(result.error) for result in results} <= {type(None), UserBacklogFull, EventNotFound}
    assert (await backend.users.usage(user)).event_ids <= BACKLOG
    assert await again(backend, user, "old") == [(1, True)]
    await backend.commit(user, 1)
    await backend.append(user, "new")
    assert (await backend.users.usage(user)).event_ids <= BACKLOG


@pytest.mark.parametrize("size", [2, 3, 5, 7])
async def test_usage_never_exceeds_the_quota(open_backend: OpenBackend, user: UserKey, size: int) -> None:
    """Whatever the size of a call: what it adds counts before it is added."""
    backend, parent = small(open_backend, 21), ""
    for first in range(0, 60, size):
        names = [f"e{number}" for number in range(first, first + size)]
        await backend.append(user, *names)
        assert (await backend.users.usage(user)).event_ids <= 21
        parent = (await backend.commit(user, first + 1, parent)).name
        newest = [f"e{number}" for number in range(max(0, first + size - 10), first + size)]
        assert await again(backend, user, *newest) == [(int(name[1:]) + 1, True) for name in newest]


async def test_a_dead_letter_that_is_appended_again_is_known_by_its_new_sequence(
    open_backend: OpenBackend, user: UserKey
) -> None:
    backend = small(open_backend, 4)
    await backend.append(user, "a", "b")
    assert await backend.log.retry_dead_letter(await buried(backend, user))
    assert await again(backend, user, "a", "b") == [(3, True), (2, True)]
    await backend.log.append([taking_back(user, "a")])
    assert [event.event_id for event in await waiting(backend, user)] == ["b"]
    assert (await backend.users.get(user)).likes == 1


async def test_the_id_of_a_dead_letter_that_waits_again_is_never_forgotten(
    open_backend: OpenBackend, user: UserKey
) -> None:
    """It was among the older ids, of which no event waited any more."""
    backend = small(open_backend, 4)
    await backend.append(user, "a")
    letter = await buried(backend, user)
    await forgotten(backend, user, "e1", "e2")
    assert await backend.log.retry_dead_letter(letter)
    await backend.append(user, *(f"f{number}" for number in range(8)))
    for number in range(8):
        await backend.append(user, f"g{number}")
    assert await again(backend, user, "a") == [(4, True)]


async def test_a_dead_letter_whose_id_was_forgotten_is_known_once_it_waits(
    open_backend: OpenBackend, user: UserKey
) -> None:
    backend = small(open_backend, 4)
    await backend.append(user, "a")
    letter = await buried(backend, user)
    await forgotten(backend, user, *(f"e{number}" for number in range(9)))
    assert await backend.log.retry_dead_letter(letter)
    assert await again(backend, user, "a") == [(11, True)]
    assert [event.event_id for event in await waiting(backend, user)] == ["a"]
    (result,) = await backend.log.append([taking_back(user, "a")])
    assert result.error is None
    assert await waiting(backend, user) == []


async def test_a_dead_letter_takes_no_id_from_a_later_event(open_backend: OpenBackend, user: UserKey) -> None:
    backend = small(open_backend, 4)
    await backend.append(user, "a")
    letter = await buried(backend, user)
    await forgotten(backend, user, *(f"e{number}" for number in range(9)))
    await backend.append(user, "a")
    assert await backend.log.retry_dead_letter(letter)
    assert await again(backend, user, "a") == [(11, True)]


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_happens_an_event_that_waits_is_known(
    open_backend: OpenBackend, user: UserKey, seed: int
) -> None:
    """Likes, retries, taking back, updates, dead letters, in any order and in calls of any size."""
    backend, random, names = small(open_backend, 2 * Random(seed).randint(2, 8)), Random(seed), count()
    lease, parent, made = await backend.own(user), "", 0
    for _ in range(60):
        there = await waiting(backend, user)
        act = random.choice(("like", "like", "take back", "take back", "learn", "bury", "retry a letter"))
        if act == "like":
            await backend.log.append([image_event(user, f"e{next(names)}") for _ in range(random.randint(1, 4))])
        elif act == "take back" and there:
            chosen = [random.choice(there).event_id, f"e{random.randrange(next(names))}"]
            results = await backend.log.append([taking_back(user, name) for name in chosen if name in labels(there)])
            assert {type(result.error) for result in results} <= {type(None), UserBacklogFull}
            await backend.log.append([taking_back(user, chosen[1])])
        elif act == "learn" and there and random.random() < 0.3:
            made += 1
            parent = (await backend.commit(user, made, parent, lease)).name
        elif act == "bury" and there:
            await backend.log.bury(lease, [random.choice(there)], "a test")
        elif act == "retry a letter" and (letters := await backend.log.dead_letters(lease.partition)):
            assert await backend.log.retry_dead_letter(random.choice(letters))
        there = await waiting(backend, user)
        results = await backend.log.append([sent_again(user, event.event_id) for event in there])
        assert [(result.sequence, result.duplicate) for result in results] == [(each.sequence, True) for each in there]
        assert (await backend.users.usage(user)).event_ids <= BACKLOG
