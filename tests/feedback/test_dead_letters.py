"""Dead letters, stats and heartbeats."""

from __future__ import annotations

import asyncio

from papa_serving.contracts.feedback import UserBatch
from papa_serving.contracts.identity import UserKey

from tests.store.support import PARTITIONS, Backend, image_event


async def test_a_buried_event_is_kept_whole_with_its_reason(backend: Backend, user: UserKey) -> None:
    await backend.log.append([image_event(user, "a", -0.5, b"poison"), image_event(user, "b")])
    lease = await backend.own(user)
    bad, good = await backend.pending(lease)
    await backend.log.begin_attempt(lease, UserBatch(user, (bad,)))
    await backend.log.bury(lease, [bad], "loss is not finite")
    (letter,) = await backend.log.dead_letters(lease.partition)
    assert (letter.partition, letter.reason) == (lease.partition, "loss is not finite")
    assert letter.at >= bad.accepted_at
    assert (letter.event.event_id, letter.event.grade, letter.event.sample) == ("a", -0.5, b"poison")
    assert (letter.event.user, letter.event.sequence, letter.event.attempts) == (user, 1, 1)
    assert await backend.pending(lease) == (good,)
    state = await backend.users.get(user)
    assert (state.pending, state.dead_letters, state.dislikes) == (1, 1, 1)


async def test_events_behind_a_buried_one_can_be_committed(backend: Backend, user: UserKey) -> None:
    await backend.append(user, "a", "b")
    lease = await backend.own(user)
    await backend.log.bury(lease, (await backend.pending(lease))[:1], "poison")
    revision = await backend.commit(user, 1, lease=lease)
    assert (revision.first_sequence, revision.last_sequence) == (2, 2)


async def test_burying_twice_makes_one_letter(backend: Backend, user: UserKey) -> None:
    await backend.append(user, "a", "b")
    lease = await backend.own(user)
    events = await backend.pending(lease)
    await backend.log.bury(lease, events, "poison")
    await backend.log.bury(lease, events, "poison")
    assert [letter.event.event_id for letter in await backend.log.dead_letters(lease.partition)] == ["a", "b"]
    assert (await backend.users.get(user)).dead_letters == 2


async def test_letters_are_listed_oldest_first_up_to_a_limit(backend: Backend, user: UserKey) -> None:
    await backend.append(user, *"abc")
    lease = await backend.own(user)
    for event in reversed(await backend.pending(lease)):
        await backend.log.bury(lease, [event], "poison")
    first_two = await backend.log.dead_letters(lease.partition, 2)
    assert [letter.event.event_id for letter in first_two] == ["c", "b"]
    rest = await backend.log.dead_letters(lease.partition, 2, first_two[-1].letter_id)
    assert [letter.event.event_id for letter in rest] == ["a"]
    assert await backend.log.dead_letter(lease.partition, rest[0].letter_id) == rest[0]
    for none in ("7-7", "", "-", "x"):
        assert await backend.log.dead_letter(lease.partition, none) is None


async def test_a_retried_letter_is_the_users_newest_event(backend: Backend, user: UserKey) -> None:
    await backend.append(user, "a", "b")
    lease = await backend.own(user)
    first, _ = await backend.pending(lease)
    await backend.log.begin_attempt(lease, UserBatch(user, (first,)))
    await backend.log.bury(lease, [first], "poison")
    (letter,) = await backend.log.dead_letters(lease.partition)
    assert await backend.log.retry_dead_letter(letter)
    assert not await backend.log.retry_dead_letter(letter)
    pending = await backend.pending(lease)
    assert [event.event_id for event in pending] == ["b", "a"]
    assert (pending[1].sequence, pending[1].attempts, pending[1].sample) == (3, 0, first.sample)
    state = await backend.users.get(user)
    assert (state.pending, state.dead_letters, state.likes) == (2, 0, 2)
    await backend.commit(user, 1, lease=lease)


async def test_a_dropped_letter_is_gone_and_its_event_stays_known(backend: Backend, user: UserKey) -> None:
    await backend.append(user, "a")
    lease = await backend.own(user)
    await backend.log.bury(lease, await backend.pending(lease), "poison")
    (letter,) = await backend.log.dead_letters(lease.partition)
    assert await backend.log.drop_dead_letter(letter)
    assert not await backend.log.drop_dead_letter(letter)
    assert not await backend.log.retry_dead_letter(letter)
    assert await backend.log.dead_letters(lease.partition) == []
    assert (await backend.users.get(user)).dead_letters == 0
    (again,) = await backend.log.append([image_event(user, "a")])
    assert again.duplicate


async def test_deletion_takes_the_letters_along(backend: Backend, user: UserKey) -> None:
    await backend.append(user, "a", "b")
    lease = await backend.own(user)
    events = await backend.pending(lease)
    await backend.log.bury(lease, events[:1], "poison")
    (letter,) = await backend.log.dead_letters(lease.partition)
    await backend.users.delete(user)
    assert await backend.log.dead_letters(lease.partition) == []
    assert not await backend.log.retry_dead_letter(letter)
    assert not await backend.log.drop_dead_letter(letter)
    await backend.log.bury(lease, events, "poison")
    assert await backend.log.dead_letters(lease.partition) == []


async def test_stats_count_what_waits_and_what_is_dead(backend: Backend, user: UserKey) -> None:
    partition = user.partition(PARTITIONS)
    empty = await backend.log.stats(partition)
    assert (empty.backlog, empty.oldest_age, empty.dead_letters) == (0, 0.0, 0)
    await backend.append(user, "a", "b", "c")
    lease = await backend.own(user)
    await backend.log.bury(lease, (await backend.pending(lease))[:1], "poison")
    await asyncio.sleep(0.05)
    stats = await backend.log.stats(partition)
    assert (stats.backlog, stats.dead_letters) == (2, 1)
    assert 0.04 <= stats.oldest_age < 60
    await backend.commit(user, 1, lease=lease)
    assert (await backend.log.stats(partition)).backlog == 0


async def test_heartbeats_name_the_live_trainers(backend: Backend) -> None:
    assert await backend.log.heartbeat("b", 30) == ["b"]
    assert await backend.log.heartbeat("a", 0.05) == ["a", "b"]
    await asyncio.sleep(0.1)
    assert await backend.log.heartbeat("b", 30) == ["b"]
