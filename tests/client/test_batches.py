"""Batches beyond one call's limits, events beyond any, and where a caller reads the limits."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest
from papa_serving.client import FeedbackEvent, InvalidRequest, Limits, PromptReading, Usage
from papa_serving.client.batches import split
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.items import BackboneInfo, StoredItem
from papa_serving.contracts.vocabulary import Vocabulary
from papa_serving.stubs.serving.v1 import feedback_pb2
from PIL import Image

from tests.gateway.support.doubles import revision
from tests.gateway.support.service import OVERDRAW, Service


def picture(size: int) -> bytes:
    """A PNG of about `size` bytes, which no compression makes smaller."""
    side = int(size**0.5)
    data = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (side, side), np.uint8)
    Image.fromarray(noise).save(data, "PNG", compress_level=0)
    return data.getvalue()


async def test_a_batch_beyond_the_message_limit_goes_out_in_order_as_several_calls(client: Any) -> None:
    image = picture(800_000)
    outcomes = await client.submit_feedback([FeedbackEvent("alice", 1.0, image=image) for _ in range(12)])
    assert [(outcome.sequence, outcome.error) for outcome in outcomes] == [(n + 1, None) for n in range(12)]


async def test_a_batch_beyond_the_number_of_events_too(client: Any) -> None:
    limits = (await client.server_info()).limits
    events = [FeedbackEvent("alice", 1.0, item_id="none") for _ in range(limits.max_events)]
    image = picture(10_000)
    outcomes = await client.submit_feedback([FeedbackEvent("alice", 1.0, image=image), *events[1:]])
    assert len(outcomes) == limits.max_events
    with_last = [FeedbackEvent("alice", 1.0, image=image) if n % 500 == 0 else event for n, event in enumerate(events)]
    outcomes = await client.submit_feedback([*with_last, FeedbackEvent("alice", 1.0, image=image)])
    assert len(outcomes) == limits.max_events + 1
    assert outcomes[0].accepted


async def test_one_oversize_event_is_refused_before_anything_is_sent(client: Any) -> None:
    good, huge = FeedbackEvent("alice", 1.0, image=picture(900)), FeedbackEvent("alice", 1.0, image=bytes(9 * 2**20))
    with pytest.raises(InvalidRequest) as refused:
        await client.submit_feedback([good, huge])
    assert [violation.field for violation in refused.value.violations] == ["events[1].image.data"]
    assert (await client.get_user("alice")).likes == 0


async def test_an_oversize_event_does_not_end_a_stream(client: Any) -> None:
    sizes = (900, 9 * 2**20, 900)
    events = [FeedbackEvent("alice", 1.0, event_id=str(n), image=picture(size)) for n, size in enumerate(sizes)]
    outcomes = [outcome async for outcome in client.stream_feedback(events)]
    assert [(outcome.event_id, outcome.accepted) for outcome in outcomes] == [("0", True), ("1", False), ("2", True)]
    assert isinstance(outcomes[1].error, InvalidRequest)
    assert outcomes[1].error.field == "image.data"
    assert str(outcomes[1].error).startswith("image.data: must be"), "the field is named once"


CANNOT_BE_SENT = {
    "target": FeedbackEvent("alice", 1.0, item_id="both", image=b"x"),
    "user.user": FeedbackEvent("half a pair \ud83d", 1.0, item_id="x"),
    "event_id": FeedbackEvent("alice", 1.0, item_id="x", event_id="\ud83d"),
    "grade": FeedbackEvent("alice", "like", item_id="x"),  # type: ignore[arg-type]
    "item_id": FeedbackEvent("alice", 1.0, item_id=7),  # type: ignore[arg-type]
    "image.data": FeedbackEvent("alice", 1.0, image="a path"),  # type: ignore[arg-type]
    "image.prompt": FeedbackEvent("alice", 1.0, image=b"x", prompt="\udc00"),
    "occurred_at": FeedbackEvent("alice", 1.0, item_id="x", occurred_at="yesterday"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("field", CANNOT_BE_SENT)
async def test_what_no_message_can_hold_is_refused_by_name_and_does_not_end_a_stream(client: Any, field: str) -> None:
    good, bad = FeedbackEvent("alice", 1.0, image=picture(900)), CANNOT_BE_SENT[field]
    outcomes = [outcome async for outcome in client.stream_feedback([good, bad, replace(good, event_id="last")])]
    assert [(each.event_id, each.accepted) for each in outcomes] == [
        (good.event_id, True), (bad.event_id, False), ("last", True)
    ]  # fmt: skip
    assert isinstance(outcomes[1].error, InvalidRequest)
    assert outcomes[1].error.field == field
    with pytest.raises(InvalidRequest, match=rf"events\[1\]\.{field}: "):
        await client.submit_feedback([good, bad])


async def test_an_id_that_no_message_can_hold_is_refused_by_name(client: Any) -> None:
    for call in (client.get_user, client.delete_user, client.reset):
        with pytest.raises(InvalidRequest, match=r"^user\.user: "):
            await call("\ud83d")
    with pytest.raises(InvalidRequest, match=r"^revision: "):
        await client.rollback("alice", "\ud83d")
    with pytest.raises(InvalidRequest, match=r"^letter_id: "):
        await client.retry_dead_letter("alice", 7)
    with pytest.raises(InvalidRequest, match=r"^backbone: "):
        await client.import_adapter("alice", {}, backbone_hash="\ud83d")
    beyond = datetime(9999, 12, 31, 23, 59, tzinfo=timezone(timedelta(hours=-5)))
    (outcome,) = [
        each async for each in client.stream_feedback([FeedbackEvent("alice", 1.0, item_id="x", occurred_at=beyond)])
    ]
    assert outcome.error.field == "occurred_at"


async def test_the_limits_can_be_read(service: Service, client: Any) -> None:
    info = await client.server_info()
    assert info.overdraw == OVERDRAW
    assert info.limits == Limits()
    assert info.version
    known = await service.items.backbone_info()
    assert known is not None
    assert (info.backbone_name, info.backbone_hash) == (known.name, known.backbone_hash)
    assert info.image_shape == known.image_shape


async def test_the_quotas_of_a_user_can_be_read_and_what_a_user_has_of_them(service: Service, client: Any) -> None:
    settings, alice = service.state.settings, UserKey("default", "alice")
    quotas = (await client.server_info()).quotas
    assert (quotas.revisions, quotas.items) == (settings.store.user_revisions, settings.store.user_items)
    assert (quotas.event_ids, quotas.remembered_labels) == (settings.store.user_event_ids, 512)
    assert quotas.pending_events == settings.feedback.backlog_limit / 2
    assert (await client.get_user("alice")).usage == Usage()
    await client.submit_feedback([FeedbackEvent("alice", 1.0, image=picture(64)) for _ in range(3)])
    service.users.commit(alice, replace(revision(1), remembered=7))
    generation = await client.generate("alice", 2)
    await service.items.put(alice, [StoredItem(each.item_id, b"x", "", "g", 1) for each in generation.items])
    known = (await client.get_user("alice")).usage
    assert known == Usage(revisions=1, items=2, event_ids=3, remembered_labels=7)


async def test_the_words_that_the_backbone_knows_can_be_read_and_what_was_made_of_a_prompt(
    service: Service, client: Any
) -> None:
    vocabulary = Vocabulary(("boot", "bag"))
    service.items.info = BackboneInfo("b", "text", (1, 28, 28), takes_prompt=True, vocabulary=vocabulary)
    assert (await client.server_info()).vocabulary == ("boot", "bag")
    generation = await client.generate("alice", 1, prompt="red boots")
    assert generation.prompt_reading == PromptReading("boot", {"boots": "boot"}, ("red",))
    stream = client.stream_generate("alice", 1, prompt="red boots")
    assert len([item async for item in stream]) == 1
    assert stream.prompt_reading == generation.prompt_reading
    assert (await client.generate("alice", 1, prompt="boot")).prompt_reading is None


def test_parts_are_as_long_as_the_limits_allow() -> None:
    events = [feedback_pb2.FeedbackEvent(event_id="e" * size) for size in (50, 50, 50, 90, 10)]
    parts = [[len(event.event_id) for event in part] for part in split(events, Limits(max_message_bytes=140))]
    assert parts == [[50, 50], [50], [90, 10]]
    by_number = [len(part) for part in split(events, Limits(max_events=2))]
    assert by_number == [2, 2, 1]
    assert [list(part) for part in split([], Limits())] == [[]]
