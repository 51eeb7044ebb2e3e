"""What is kept of users' events and impressions: over memory, Redis and a cluster."""

from __future__ import annotations

import asyncio
import json

from papa_serving.contracts.attribution import Attribution, Kind, Notes, Record
from papa_serving.contracts.errors import EventIdReused, ItemNotFound
from papa_serving.contracts.feedback import FeedbackEvent
from papa_serving.contracts.identity import UserKey
from papa_serving.settings import AttributionSettings

from tests.store.support import Backend, OpenBackend, an_item, event_id_quota, image_event

OTHER = UserKey("shop", "other")


def typed(user: UserKey, event_id: str, kind: str, grade: float, item: str = "i1", **fields: str) -> FeedbackEvent:
    return FeedbackEvent(event_id, user, grade, item_id=item, attribution=Attribution(kind, **fields))


async def kept(backend: Backend, user: UserKey, kind: Kind = "event") -> list[dict[str, object]]:
    return [json.loads(record.data) for record in await backend.activity.kept(user, kind)]


async def test_an_event_is_kept_with_its_origin_and_notes(backend: Backend, user: UserKey) -> None:
    await backend.items.put(user, [an_item("i1")])
    notes = Notes({"page": "home é"}, ("spring",))
    event = FeedbackEvent(
        "e1", user, 0.5, item_id="i1", occurred_at=3.5, attribution=Attribution("cart", "g1", notes=notes)
    )
    await backend.log.append([event, image_event(user, "bare")])
    assert await kept(backend, user) == [
        {
            "event_id": "e1", "item_id": "i1", "grade": 0.5, "occurred_at": 3.5, "type": "cart", "generation_id": "g1",
            "metadata": {"page": "home é"}, "tags": ["spring"],
        }
    ]  # fmt: skip
    assert [(each.event_id, each.grade) for each in await backend.pending(await backend.own(user))] == [
        ("e1", 0.5),
        ("bare", 1.0),
    ]


async def test_an_event_without_weight_is_accepted_once_and_teaches_nothing(backend: Backend, user: UserKey) -> None:
    views = [typed(user, "v1", "view", 0.0), typed(user, "v1", "view", 0.0), typed(user, "v2", "view", 0.0)]
    results = await backend.log.append([*views, image_event(user, "like")])
    assert [(each.sequence, each.duplicate) for each in results] == [(1, False), (1, True), (2, False), (3, False)]
    state = await backend.users.get(user)
    assert (state.likes, state.dislikes, state.pending) == (1, 0, 1)
    assert [each.event_id for each in await backend.pending(await backend.own(user))] == ["like"]
    assert [each["event_id"] for each in await kept(backend, user)] == ["v1", "v2"]
    (reused,) = await backend.log.append([image_event(user, "v1")])
    assert isinstance(reused.error, EventIdReused)


async def test_a_retry_is_a_duplicate_though_its_weight_has_changed(backend: Backend, user: UserKey) -> None:
    await backend.items.put(user, [an_item("i1")])
    await backend.log.append([typed(user, "e", "click", 0.2)])
    again, other = await backend.log.append([typed(user, "e", "click", 0.0), typed(user, "e", "cart", 0.2)])
    assert again.duplicate
    assert isinstance(other.error, EventIdReused)
    assert len(await kept(backend, user)) == 1


async def test_taking_back_is_kept_too(backend: Backend, user: UserKey) -> None:
    await backend.items.put(user, [an_item("i1")])
    await backend.log.append([typed(user, "e", "purchase", 1.0), typed(user, "v", "view", 0.0)])
    results = await backend.log.append(
        [FeedbackEvent("b", user, 0.0, cancels="e"), FeedbackEvent("w", user, 0.0, cancels="v")]
    )
    assert [each.error for each in results] == [None, None]
    assert [each.get("cancels") for each in await kept(backend, user)] == [None, None, "e", "v"]
    state = await backend.users.get(user)
    assert (state.likes, state.pending) == (0, 0)


async def test_the_newest_are_kept_and_nobody_elses(open_backend: OpenBackend, user: UserKey) -> None:
    backend = open_backend(attribution=AttributionSettings(events=3, impressions=2))
    await backend.log.append([typed(user, f"v{n}", "view", 0.0) for n in range(5)])
    for number in range(4):
        await backend.activity.add(user, "impression", json.dumps({"n": number}).encode())
    assert [each["event_id"] for each in await kept(backend, user)] == ["v2", "v3", "v4"]
    assert [each["n"] for each in await kept(backend, user, "impression")] == [2, 3]
    assert await kept(backend, OTHER) == await kept(backend, OTHER, "impression") == []


async def test_both_end_with_their_time(open_backend: OpenBackend, user: UserKey) -> None:
    backend = open_backend(attribution=AttributionSettings(ttl=0.05))
    await backend.log.append([typed(user, "v", "view", 0.0)])
    await backend.activity.add(user, "impression", b"{}")
    async with asyncio.timeout(30):
        while await kept(backend, user) or await kept(backend, user, "impression"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_deletion_takes_both_and_lets_none_in(backend: Backend, user: UserKey) -> None:
    await backend.log.append([typed(user, "v", "view", 0.0)])
    await backend.activity.add(user, "impression", b"{}")
    await backend.users.delete(user)
    await backend.activity.add(user, "impression", b"{}")
    assert await kept(backend, user) == await kept(backend, user, "impression") == []


async def test_views_push_out_no_id_of_a_like(open_backend: OpenBackend, user: UserKey) -> None:
    """Nor does taking them back. The newest views are known as well."""
    backend = open_backend(store=event_id_quota(16))
    await backend.log.append([image_event(user, "like")])
    await backend.commit(user, 1)
    for first in range(0, 40, 4):
        views = [typed(user, f"v{number}", "view", 0.0) for number in range(first, first + 4)]
        await backend.log.append(views)
        assert all(each.duplicate for each in await backend.log.append(views))
        await backend.log.append([FeedbackEvent(f"undo {first}", user, 0.0, cancels=f"v{first}")])
    (again,) = await backend.log.append([image_event(user, "like")])
    assert again.duplicate
    (oldest,) = await backend.log.append([typed(user, "v0", "view", 0.0)])
    assert not oldest.duplicate, "the ids of views are bounded"
    assert (await backend.users.get(user)).likes == 1


async def test_a_type_whose_item_is_gone_is_no_label_and_a_bare_grade_is_refused(
    backend: Backend, user: UserKey
) -> None:
    late = typed(user, "late", "purchase", 1.0, "gone", generation_id="g1")
    first, again, bare = await backend.log.append(
        [late, late, FeedbackEvent("bare", user, 1.0, item_id="gone", attribution=Attribution(generation_id="g1"))]
    )
    assert (first.error, first.sequence, first.duplicate, first.item_gone) == (None, 1, False, True)
    assert (again.sequence, again.duplicate, again.item_gone) == (1, True, True)
    assert isinstance(bare.error, ItemNotFound)
    (undone,) = await backend.log.append([FeedbackEvent("undo", user, 0.0, cancels="late")])
    assert undone.error is None
    state = await backend.users.get(user)
    assert (state.likes, state.dislikes, state.pending) == (0, 0, 0)
    assert [each["event_id"] for each in await kept(backend, user)] == ["late", "undo"]


async def test_merged_records_stay_in_the_order_of_time_and_the_newest_are_kept(
    open_backend: OpenBackend, user: UserKey
) -> None:
    backend = open_backend(attribution=AttributionSettings(events=4))
    await backend.log.append([typed(user, f"own{n}", "view", 0.0) for n in range(3)])
    now = (await backend.activity.kept(user, "event"))[0].at
    records = [Record(now - age, b'{"event_id":"%d s ago"}' % age) for age in (40 * 86_400, 20, 10)]
    for _ in range(2):
        await backend.activity.merge(user, "event", records)
        assert [each["event_id"] for each in await kept(backend, user)] == ["10 s ago", "own0", "own1", "own2"]
    assert round(now - (await backend.activity.kept(user, "event"))[0].at, 2) == 10
    await backend.log.append([typed(user, "new", "view", 0.0)])
    assert [each["event_id"] for each in await kept(backend, user)] == ["own0", "own1", "own2", "new"]
    await backend.activity.merge(OTHER, "event", records)
    assert [each["event_id"] for each in await kept(backend, OTHER)] == ["20 s ago", "10 s ago"]
    await backend.users.delete(user)
    await backend.activity.merge(user, "event", records)
    assert await kept(backend, user) == []
