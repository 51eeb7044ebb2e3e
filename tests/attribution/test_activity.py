"""What is kept of users' events and impressions: over memory, Redis and a cluster."""

from __future__ import annotations

import asyncio
import json

from papa_serving.contracts.attribution import Attribution, Kind, Notes
from papa_serving.contracts.errors import EventIdReused
from papa_serving.contracts.feedback import FeedbackEvent
from papa_serving.contracts.identity import UserKey
from papa_serving.settings import AttributionSettings

from tests.store.support import Backend, OpenBackend, an_item, image_event

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
