"""FeedbackLog.append over memory and Redis."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from itertools import count, islice

from papa_serving.contracts.errors import (
    BacklogFull,
    EncoderChanged,
    EventIdReused,
    ItemNotFound,
    UserBacklogFull,
    UserDeleted,
)
from papa_serving.contracts.feedback import FeedbackEvent
from papa_serving.contracts.identity import UserKey
from papa_serving.settings import FeedbackSettings, StoreSettings

from tests.store.support import PARTITIONS, Backend, OpenBackend, an_item, image_event


async def test_events_get_sequences_in_the_order_of_the_call(backend: Backend, user: UserKey) -> None:
    other = UserKey("shop", "other")
    calls = [image_event(user, "a"), image_event(other, "a"), image_event(user, "b"), image_event(other, "b")]
    results = await backend.log.append(calls)
    assert [(r.event_id, r.sequence, r.duplicate, r.error) for r in results] == [
        ("a", 1, False, None),
        ("a", 1, False, None),
        ("b", 2, False, None),
        ("b", 2, False, None),
    ]


async def test_an_event_is_read_as_it_was_written(backend: Backend, user: UserKey) -> None:
    await backend.items.put(user, [an_item("i1", "000003-0a0b0c0d")])
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await backend.log.append([FeedbackEvent("é1", user, -0.25, item_id="i1", traceparent=trace)])
    await backend.log.append([image_event(user, "2", image=bytes(range(256)))])
    first, second = await backend.pending(await backend.own(user))
    assert (first.event_id, first.user, first.grade, first.sequence) == ("é1", user, -0.25, 1)
    assert (first.sample, first.revision, first.traceparent) == (b"sample of i1", "000003-0a0b0c0d", trace)
    assert (second.sample, second.revision, second.attempts) == (bytes(range(256)), "", 0)
    assert 0 <= second.accepted_at - first.accepted_at < 60


async def test_an_item_of_a_catalogue_is_the_same_whatever_its_picture(backend: Backend, user: UserKey) -> None:
    def event(event_id: str, image: bytes, named: tuple[str, str] = ("summer", "shoe")) -> FeedbackEvent:
        missing = None if image else EncoderChanged("import it again")
        return FeedbackEvent(event_id, user, 0.5, image=image, catalogue_item=named, missing=missing)

    first = [event("gone", b""), event("a", b"picture"), event("a", b"another"), event("a", b""), event("b", b"")]
    other = [event("a", b"picture", named) for named in (("summer", "hat"), ("autumn", "shoe"), ("summers", "hoe"))]
    results = await backend.log.append([*first, *other, event("c", b"picture")])
    assert [(each.sequence, each.duplicate, type(each.error)) for each in results] == [
        (0, False, EncoderChanged),
        (1, False, type(None)),
        (1, True, type(None)),
        (1, True, type(None)),
        (0, False, EncoderChanged),
        *[(0, False, EventIdReused)] * 3,
        (2, False, type(None)),
    ]
    assert [each.sample for each in await backend.pending(await backend.own(user))] == [b"picture"] * 2


async def test_a_sample_outlives_its_item(open_backend: OpenBackend, user: UserKey) -> None:
    backend = open_backend(store=StoreSettings(item_ttl=0.2))
    for attempt in count():
        await backend.items.put(user, [an_item("i1")])
        (result,) = await backend.log.append([FeedbackEvent(f"in time {attempt}", user, 1.0, item_id="i1")])
        if result.error is None:
            break
    await backend.until_expired(user, "i1")
    (late,) = await backend.log.append([FeedbackEvent("late", user, 1.0, item_id="i1")])
    assert isinstance(late.error, ItemNotFound)
    assert [event.sample for event in await backend.pending(await backend.own(user))] == [b"sample of i1"]


async def test_a_retry_is_a_duplicate_with_the_first_sequence(backend: Backend, user: UserKey) -> None:
    await backend.append(user, "a", "b")
    again, new, twice = await backend.log.append([image_event(user, name) for name in ("a", "c", "c")])
    assert (again.sequence, again.duplicate) == (1, True)
    assert (new.sequence, new.duplicate) == (3, False)
    assert (twice.sequence, twice.duplicate) == (3, True)
    assert len(await backend.pending(await backend.own(user))) == 3


async def test_a_retry_after_the_commit_is_still_a_duplicate(backend: Backend, user: UserKey) -> None:
    await backend.append(user, "a")
    await backend.commit(user, 1)
    (again,) = await backend.log.append([image_event(user, "a")])
    assert (again.sequence, again.duplicate) == (1, True)
    assert await backend.pending(await backend.own(user)) == ()


async def test_an_event_id_cannot_say_two_things(backend: Backend, user: UserKey) -> None:
    await backend.items.put(user, [an_item("i1")])
    await backend.append(user, "a")
    changed = [
        image_event(user, "a", -1.0),
        image_event(user, "a", image=b"x"),
        FeedbackEvent("a", user, 1, item_id="i1"),
    ]
    for result in await backend.log.append(changed):
        assert isinstance(result.error, EventIdReused)
    (same,) = await backend.log.append([image_event(user, "a", 1)])
    assert same.duplicate


async def test_event_ids_belong_to_their_user(backend: Backend, user: UserKey) -> None:
    await backend.append(user, "a")
    await backend.append(UserKey(user.tenant, "other"), "a")
    await backend.append(UserKey("elsewhere", user.user), "a")


async def test_an_event_id_is_forgotten_only_after_its_time(open_backend: OpenBackend, user: UserKey) -> None:
    backend = open_backend(store=StoreSettings(event_id_ttl=0.3))
    begun = time.monotonic()
    await backend.append(user, "a")
    await backend.commit(user, 1)
    while True:
        (again,) = await backend.log.append([image_event(user, "a")])
        if not again.duplicate:
            break
        await asyncio.sleep(0.02)
    assert time.monotonic() - begun >= 0.3
    assert again.sequence == 2


async def test_feedback_on_foreign_and_unknown_items_is_refused_alone(backend: Backend, user: UserKey) -> None:
    other = UserKey(user.tenant, "other")
    await backend.items.put(other, [an_item("theirs")])
    await backend.items.put(user, [an_item("mine")])
    targets = ["theirs", "mine", "", "nobody's"]
    events = [
        FeedbackEvent(f"e{i}", user, 1.0, item_id=target, image=b"" if target else b"p")
        for i, target in enumerate(targets)
    ]
    results = await backend.log.append(events)
    assert [type(result.error) for result in results] == [ItemNotFound, type(None), type(None), ItemNotFound]
    assert [result.sequence for result in results] == [0, 1, 2, 0]
    assert (await backend.users.get(user)).likes == 2


async def test_a_refused_event_may_be_sent_again(backend: Backend, user: UserKey) -> None:
    event = FeedbackEvent("e", user, 1.0, item_id="late")
    (refused,) = await backend.log.append([event])
    await backend.items.put(user, [an_item("late")])
    (accepted,) = await backend.log.append([event])
    assert refused.error is not None
    assert (accepted.sequence, accepted.duplicate) == (1, False)


async def test_nothing_is_known_of_a_user_whose_events_were_all_refused(backend: Backend, user: UserKey) -> None:
    await backend.log.append([FeedbackEvent("e", user, 1.0, item_id="none")])
    assert (await backend.users.get(user)).version == 0


async def test_a_full_partition_refuses_new_events_and_knows_old_ones(open_backend: OpenBackend, user: UserKey) -> None:
    backend = open_backend(feedback=FeedbackSettings(partitions=PARTITIONS, backlog_limit=3))
    neighbours = [user, *islice((each for each in others() if in_one_partition(each, user)), 2)]
    results = await backend.log.append([image_event(each, "1") for each in neighbours])
    assert [result.sequence for result in results] == [1, 1, 1]
    for each in neighbours:
        (refused,) = await backend.log.append([image_event(each, "2")])
        assert isinstance(refused.error, BacklogFull)
        assert refused.error.retry_after
    (again,) = await backend.log.append([image_event(user, "1")])
    assert again.duplicate
    await backend.commit(user, 1)
    await backend.append(user, "3")


async def test_one_user_has_no_more_of_a_backlog_than_is_free(open_backend: OpenBackend, user: UserKey) -> None:
    backend = open_backend(feedback=FeedbackSettings(partitions=PARTITIONS, backlog_limit=10))
    other = next(each for each in others() if in_one_partition(each, user))
    results = await backend.log.append([image_event(user, str(n)) for n in range(8)])
    assert [result.sequence for result in results] == [1, 2, 3, 4, 5, 0, 0, 0]
    for result in results[5:]:
        assert isinstance(result.error, UserBacklogFull)
        assert "this user" in result.error.message
        assert result.error.retry_after
    await backend.append(other, "a", "b", "c")
    await backend.commit(user, 1)
    await backend.append(user, "late")


def others() -> Iterator[UserKey]:
    return (UserKey("shop", str(n)) for n in count())


def in_one_partition(one: UserKey, other: UserKey) -> bool:
    return one.partition(PARTITIONS) == other.partition(PARTITIONS)


async def test_a_full_partition_does_not_stop_another(open_backend: OpenBackend, user: UserKey) -> None:
    backend = open_backend(feedback=FeedbackSettings(partitions=PARTITIONS, backlog_limit=1))
    others = (UserKey("shop", str(n)) for n in range(100))
    elsewhere = next(o for o in others if o.partition(PARTITIONS) != user.partition(PARTITIONS))
    results = await backend.log.append([image_event(user, "1"), image_event(user, "2"), image_event(elsewhere, "1")])
    assert [result.sequence for result in results] == [1, 0, 1]


async def test_a_deleted_user_gets_no_events(backend: Backend, user: UserKey) -> None:
    await backend.append(user, "a")
    await backend.users.delete(user)
    for result in await backend.log.append([image_event(user, "a"), image_event(user, "b")]):
        assert isinstance(result.error, UserDeleted)
    assert await backend.pending(await backend.own(user)) == ()


async def test_counters_follow_the_grades(backend: Backend, user: UserKey) -> None:
    grades = [1.0, 0.1, -0.1, -1.0, 1]
    await backend.log.append([image_event(user, str(n), grade) for n, grade in enumerate(grades)])
    state = await backend.users.get(user)
    assert (state.likes, state.dislikes, state.pending) == (3, 2, 5)


async def test_a_large_call_keeps_each_users_order(backend: Backend) -> None:
    users = [UserKey("shop", str(n)) for n in range(7)]
    events = [image_event(users[n % 7], str(n)) for n in range(3000)]
    results = await backend.log.append(events)
    assert [result.sequence for result in results] == [n // 7 + 1 for n in range(3000)]
    for member in users:
        read = await backend.pending(await backend.own(member), member)
        assert [event.event_id for event in read] == [e.event_id for e in events if e.user == member]


async def test_no_events_are_no_work(backend: Backend) -> None:
    assert await backend.log.append([]) == []
