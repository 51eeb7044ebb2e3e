"""SubmitFeedback and StreamFeedback: what is accepted, what is refused, and that nothing is acknowledged too early."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import AsyncIterator, Sequence

import grpc
import numpy as np
import pytest
from google.protobuf import timestamp_pb2
from papa_serving.contracts.errors import (
    BacklogFull,
    GeneratorUnavailable,
    ItemNotFound,
    StorageDamaged,
    StorageUnavailable,
    UserDeleted,
)
from papa_serving.contracts.feedback import AppendResult, FeedbackEvent
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.items import BackboneInfo
from papa_serving.contracts.samples import unpack_sample
from papa_serving.gateway.api.feedback import MAX_BYTES, MAX_EVENTS
from papa_serving.settings import AttributionSettings
from papa_serving.stubs.serving.v1 import feedback_pb2, types_pb2
from PIL import Image

from tests.gateway.support.service import Service, eventually, refusal

ALICE = types_pb2.User(user="alice")
Event, Submit, Stream = (
    feedback_pb2.FeedbackEvent,
    feedback_pb2.SubmitFeedbackRequest,
    feedback_pb2.StreamFeedbackRequest,
)
LIKE, DISLIKE = feedback_pb2.SIGNAL_LIKE, feedback_pb2.SIGNAL_DISLIKE


def like(number: int, **fields: object) -> Event:
    return Event(**{"event_id": f"e{number}", "user": ALICE, "item_id": f"i{number}", "signal": LIKE, **fields})


def png(size: tuple[int, int] = (28, 28), grey: int = 200) -> bytes:
    data = io.BytesIO()
    Image.new("L", size, grey).save(data, "PNG")
    return data.getvalue()


async def test_events_reach_the_log_in_order_as_grades(service: Service) -> None:
    at = timestamp_pb2.Timestamp(seconds=1_700_000_000, nanos=500_000_000)
    events = [
        like(0),
        like(1, signal=DISLIKE, occurred_at=at),
        Event(event_id="e2", user=types_pb2.User(tenant="shop", user="bob"), item_id="i2", grade=-0.1),
    ]
    trace = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    response = await service.feedback.SubmitFeedback(Submit(events=events), metadata=(("traceparent", trace),))
    assert [(each.event_id, each.ack.sequence) for each in response.outcomes] == [("e0", 1), ("e1", 2), ("e2", 1)]
    first, second, third = service.log.accepted
    assert [event.grade for event in service.log.accepted] == [1.0, -1.0, float(np.float32(-0.1))], (
        "as the trainer rounds them"
    )
    assert (first.user, third.user) == (UserKey("default", "alice"), UserKey("shop", "bob"))
    assert abs(first.occurred_at - time.time()) < 60
    assert second.occurred_at == 1_700_000_000.5
    assert first.traceparent == trace
    assert service.log.groups == [3], "one append for the whole batch"


async def test_a_retry_is_a_duplicate_and_changes_nothing(service: Service) -> None:
    for _ in range(2):
        response = await service.feedback.SubmitFeedback(Submit(events=[like(0), like(1)]))
    assert [(each.ack.duplicate, each.ack.sequence) for each in response.outcomes] == [(True, 1), (True, 2)]
    assert len(service.log.accepted) == 2


async def test_each_event_has_its_own_outcome(service: Service) -> None:
    service.log.missing = {"i1"}
    service.log.refusals = {"e2": BacklogFull("the partition is full", retry_after=3.0)}
    response = await service.feedback.SubmitFeedback(Submit(events=[like(0), like(1), like(2), like(3)]))
    kinds = [each.WhichOneof("outcome") for each in response.outcomes]
    assert kinds == ["ack", "error", "error", "ack"]
    missing, full = response.outcomes[1].error, response.outcomes[2].error
    assert (missing.code, missing.reason, missing.field) == (
        grpc.StatusCode.NOT_FOUND.value[0],
        "ITEM_NOT_FOUND",
        "item_id",
    )
    assert missing.retry_after_seconds == 0.0
    assert (full.code, full.retry_after_seconds) == (grpc.StatusCode.RESOURCE_EXHAUSTED.value[0], 3.0)


async def test_a_call_of_which_nothing_was_accepted_fails_as_its_first_event(service: Service) -> None:
    service.log.refusals = {
        "e0": BacklogFull("the partition is full", retry_after=3.0),
        "e1": UserDeleted("the user was deleted"),
    }
    refused = await refusal(service.feedback.SubmitFeedback(Submit(events=[like(0), like(1)])))
    assert (refused.code, refused.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "BACKLOG_FULL")
    assert refused.retry_after == 3.0


async def test_an_error_that_names_a_field_is_a_violation_too(service: Service) -> None:
    service.log.refusals = {"e0": ItemNotFound("no such item", field="item_id")}
    refused = await refusal(service.feedback.SubmitFeedback(Submit(events=[like(0)])))
    assert (refused.code, refused.violations) == (grpc.StatusCode.NOT_FOUND, {"item_id": "no such item"})


async def test_a_reused_event_id_is_the_callers_fault(service: Service) -> None:
    await service.feedback.SubmitFeedback(Submit(events=[like(0)]))
    refused = await refusal(service.feedback.SubmitFeedback(Submit(events=[like(0, signal=DISLIKE)])))
    assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "EVENT_ID_REUSED")
    assert [event.grade for event in service.log.accepted] == [1.0]


async def test_storage_that_does_not_answer_is_retryable_and_tells_nothing_of_itself(service: Service) -> None:
    service.log.failure = StorageUnavailable("Error 111 connecting to redis.internal:6379")
    refused = await refusal(service.feedback.SubmitFeedback(Submit(events=[like(0)])))
    assert (refused.code, refused.reason) == (grpc.StatusCode.UNAVAILABLE, "STORAGE_UNAVAILABLE")
    assert refused.retry_after is not None
    assert "redis" not in refused.message
    service.log.failure = None
    assert (await service.feedback.SubmitFeedback(Submit(events=[like(0)]))).outcomes[0].ack.sequence == 1


async def test_no_acknowledgement_before_the_log_has_it(service: Service) -> None:
    service.log.gate = asyncio.Event()
    call = asyncio.ensure_future(service.feedback.SubmitFeedback(Submit(events=[like(0)])))
    await service.log.waiting.wait()
    await asyncio.sleep(0.05)
    assert not call.done()
    service.log.gate.set()
    assert (await call).outcomes[0].ack.sequence == 1


BAD: list[tuple[Event, str]] = [
    (like(0, event_id=""), "event_id"),
    (like(0, event_id="x" * 129), "event_id"),
    (like(0, event_id="merged/0a1b/7"), "event_id"),
    (like(0, user=None), "user.user"),
    (like(0, user=types_pb2.User(user="a\u2028b")), "user.user"),
    (like(0, user=types_pb2.User(user="a", tenant="t" * 129)), "user.tenant"),
    (like(0, item_id=""), "item_id"),
    (like(0, item_id="i" * 129), "item_id"),
    (Event(event_id="e0", user=ALICE, signal=LIKE), "target"),
    (Event(event_id="e0", user=ALICE, item_id="i0"), "label"),
    (like(0, signal=feedback_pb2.SIGNAL_UNSPECIFIED), "signal"),
    (like(0, signal=7), "signal"),
    *[
        (Event(event_id="e0", user=ALICE, item_id="i0", grade=grade), "grade")
        for grade in (0.0, 1.01, -1.01, float("nan"), float("inf"), 1e-300, -1e-40, 0.0009)
    ],
    (like(0, occurred_at=timestamp_pb2.Timestamp(seconds=2**62)), "occurred_at"),
    (like(0, occurred_at=timestamp_pb2.Timestamp(nanos=-1)), "occurred_at"),
    (Event(event_id="e0", user=ALICE, signal=LIKE, image=feedback_pb2.CatalogueImage()), "image.data"),
    (Event(event_id="e0", user=ALICE, signal=LIKE, image=feedback_pb2.CatalogueImage(data=b"GIF89a")), "image.data"),
    (
        Event(event_id="e0", user=ALICE, signal=LIKE, image=feedback_pb2.CatalogueImage(data=bytes(2**20 + 1))),
        "image.data",
    ),
]


@pytest.mark.parametrize(("event", "field"), BAD, ids=[f"{i}-{field}" for i, (_, field) in enumerate(BAD)])
async def test_a_malformed_event_refuses_a_batch_and_costs_a_stream_nothing(
    service: Service, event: Event, field: str
) -> None:
    refused = await refusal(service.feedback.SubmitFeedback(Submit(events=[like(1), event, like(2)])))
    assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert set(refused.violations) == {f"events[1].{field}"}
    assert service.log.accepted == []

    first, second, third = await stream(service, [like(1), event, like(2)])
    assert (first.ack.sequence, third.ack.sequence) == (1, 2)
    assert (second.event_id, second.error.reason, second.error.field) == (event.event_id, "INVALID_REQUEST", field)
    assert second.error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert len(service.log.accepted) == 2


async def test_every_violation_of_a_batch_is_named(service: Service) -> None:
    picture = feedback_pb2.CatalogueImage(data=b"no picture")
    events = [like(0, event_id="", signal=0), like(1), Event(event_id="e2", image=picture)]
    refused = await refusal(service.feedback.SubmitFeedback(Submit(events=events)))
    assert set(refused.violations) == {
        "events[0].event_id",
        "events[0].signal",
        "events[2].user.user",
        "events[2].image.data",
        "events[2].label",
    }


async def test_more_violations_than_fit_into_trailers_are_counted(service: Service) -> None:
    refused = await refusal(service.feedback.SubmitFeedback(Submit(events=[Event()] * 1000)))
    assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
    assert "events[0].event_id" in refused.violations
    shown = len(refused.violations) - 1
    assert refused.violations[""] == f"and {4000 - shown} more violations"


@pytest.mark.parametrize("count", [0, 1001])
async def test_the_size_of_a_batch(service: Service, count: int) -> None:
    refused = await refusal(service.feedback.SubmitFeedback(Submit(events=[like(i) for i in range(count)])))
    assert set(refused.violations) == {"events"}
    assert service.log.accepted == []


def typed(event_id: str, kind: str, grey: int) -> Submit:
    picture = feedback_pb2.CatalogueImage(data=png(grey=grey))
    return Submit(events=[Event(event_id=event_id, user=ALICE, type=kind, image=picture)])


@pytest.mark.parametrize(("before", "after"), [(0.5, 0.0), (0.0, 0.5), (0.5, 0.2)])
async def test_a_retry_with_a_picture_is_known_under_another_weight(
    unstarted: Service, before: float, after: float
) -> None:
    for weight in (before, after):  # weights are read when a gateway starts
        changed = {"attribution": AttributionSettings(weights={"click": weight})}
        unstarted.state.settings = unstarted.state.settings.model_copy(update=changed)
        await unstarted.start(engine_up=weight == before)
        response = await unstarted.feedback.SubmitFeedback(typed("e", "click", 10))
        assert response.outcomes[0].ack.duplicate == (weight == after)
        await unstarted.channel.close()
        await unstarted.gateway.close()


@pytest.mark.parametrize("kind", ["view", "click"])
async def test_another_picture_under_one_id_is_refused(service: Service, kind: str) -> None:
    await service.feedback.SubmitFeedback(typed("e", kind, 10))
    again = await service.feedback.SubmitFeedback(typed("e", kind, 10))
    assert again.outcomes[0].ack.duplicate
    refused = await refusal(service.feedback.SubmitFeedback(typed("e", kind, 99)))
    assert refused.reason == "EVENT_ID_REUSED"


async def test_a_catalogue_image_arrives_in_the_shape_of_the_backbone(service: Service) -> None:
    service.items.info = BackboneInfo("b", "colour", (3, 16, 24))
    picture = feedback_pb2.CatalogueImage(data=png((100, 60)))
    events = [Event(event_id=f"e{i}", user=ALICE, image=picture, signal=LIKE) for i in range(3)]
    await service.feedback.SubmitFeedback(Submit(events=events))
    sample = unpack_sample(service.log.accepted[0].image)
    assert (sample.shape, sample.dtype) == ((3, 16, 24), np.uint8)
    assert set(sample.ravel().tolist()) == {200}
    assert service.log.accepted[0].item_id == ""


async def test_images_wait_for_a_backbone_but_items_do_not(service: Service) -> None:
    service.items.info = None
    picture = Event(event_id="p", user=ALICE, image=feedback_pb2.CatalogueImage(data=png()), signal=LIKE)
    response = await service.feedback.SubmitFeedback(Submit(events=[like(0), picture]))
    assert response.outcomes[0].ack.sequence == 1
    error = response.outcomes[1].error
    assert (error.reason, error.code) == (GeneratorUnavailable.reason, grpc.StatusCode.UNAVAILABLE.value[0])
    assert error.retry_after_seconds > 0


async def stream(service: Service, events: Sequence[Event]) -> list[feedback_pb2.FeedbackOutcome]:
    call = service.feedback.StreamFeedback(iter([Stream(event=event) for event in events]))
    return [response.outcome async for response in call]


async def test_a_stream_answers_each_event_in_order(service: Service) -> None:
    service.log.gate = asyncio.Event()
    call = asyncio.ensure_future(stream(service, [like(i) for i in range(700)]))
    await service.log.waiting.wait()
    await asyncio.sleep(0.3)
    service.log.gate.set()
    outcomes = await call
    assert [each.event_id for each in outcomes] == [f"e{i}" for i in range(700)]
    assert [each.ack.sequence for each in outcomes] == list(range(1, 701))
    assert [event.event_id for event in service.log.accepted] == [f"e{i}" for i in range(700)]
    assert max(service.log.groups) > 1, "what arrives during an append makes up the next one"
    assert max(service.log.groups) <= MAX_EVENTS


async def test_an_empty_stream_ends_well(service: Service) -> None:
    assert await stream(service, []) == []


async def test_a_stream_answers_while_it_is_still_open(service: Service) -> None:
    call = service.feedback.StreamFeedback()
    for number in range(3):
        await call.write(Stream(event=like(number)))
        response = await asyncio.wait_for(call.read(), 60)
        assert response.outcome.ack.sequence == number + 1
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK


async def test_storage_that_fails_under_a_stream_costs_only_its_events(service: Service) -> None:
    call = service.feedback.StreamFeedback()
    service.log.failure = StorageUnavailable("down")
    await call.write(Stream(event=like(0)))
    error = (await call.read()).outcome.error
    assert (error.reason, error.code) == ("STORAGE_UNAVAILABLE", grpc.StatusCode.UNAVAILABLE.value[0])
    assert error.retry_after_seconds > 0
    service.log.failure = None
    await call.write(Stream(event=like(0)))
    assert (await call.read()).outcome.ack.sequence == 1
    await call.done_writing()


async def test_a_flooding_caller_is_slowed_down_not_buffered(service: Service) -> None:
    service.log.gate = asyncio.Event()
    written = 0
    padded = feedback_pb2.CatalogueImage(data=png() + bytes(200_000))

    async def flood() -> AsyncIterator[Stream]:
        nonlocal written
        for number in range(200):
            yield Stream(event=Event(event_id=f"e{number}", user=ALICE, image=padded, signal=LIKE))
            written = number + 1

    call = service.feedback.StreamFeedback(flood())
    await service.log.waiting.wait()
    before = -1
    while before != written:
        before = written
        await asyncio.sleep(0.2)
    # One group in the log, one in the buffer, the rest in the windows of HTTP/2: of 40 MB, less than half.
    assert written < 100
    service.log.gate.set()
    assert [response.outcome.ack.sequence async for response in call] == list(range(1, 201))


async def test_large_events_are_taken_a_few_at_a_time(service: Service) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (560, 560, 3), dtype=np.uint8)
    data = io.BytesIO()
    Image.fromarray(noise).save(data, "PNG")
    picture = feedback_pb2.CatalogueImage(data=data.getvalue())
    service.log.gate = asyncio.Event()
    events = [Event(event_id=f"e{i}", user=ALICE, image=picture, signal=LIKE) for i in range(12)]
    call = asyncio.ensure_future(stream(service, events))
    await service.log.waiting.wait()
    service.log.gate.set()
    assert [outcome.ack.sequence for outcome in await call] == list(range(1, 13))
    assert max(service.log.groups) * len(picture.data) <= MAX_BYTES


async def test_a_caller_that_hangs_up_leaves_nothing_behind(service: Service) -> None:
    call = service.feedback.StreamFeedback()
    await call.write(Stream(event=like(0)))
    await call.read()
    before = len(asyncio.all_tasks())
    call.cancel()
    await eventually(lambda: len(asyncio.all_tasks()) < before)
    assert len(service.log.accepted) == 1


@pytest.mark.parametrize("streamed", [False, True])
async def test_damage_that_some_events_meet_is_logged(
    service: Service, streamed: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The call itself goes well, and the caller is told no more than that data are damaged."""

    async def append(events: Sequence[FeedbackEvent]) -> list[AppendResult]:
        damage = StorageDamaged("WRONGTYPE of p03:events")
        return [
            AppendResult(event.event_id, error=damage) if event.event_id != "e0" else AppendResult("e0", sequence=1)
            for event in events
        ]

    monkeypatch.setattr(service.log, "append", append)
    events = [like(number) for number in range(3)]
    if streamed:
        stream = service.feedback.StreamFeedback()
        for event in events:
            await stream.write(Stream(event=event))
        outcomes = [(await stream.read()).outcome for _ in events]
        await stream.done_writing()
    else:
        outcomes = [*(await service.feedback.SubmitFeedback(Submit(events=events))).outcomes]
    assert [each.error.reason for each in outcomes] == ["", "STORAGE_DAMAGED", "STORAGE_DAMAGED"]
    assert "WRONGTYPE" not in str(outcomes)
    assert "feedback was not taken: WRONGTYPE of p03:events" in caplog.text
