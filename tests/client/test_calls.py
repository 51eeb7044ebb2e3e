"""Every method of both clients against a real gateway: records in, records out."""

from __future__ import annotations

import asyncio
import inspect
import io
from datetime import UTC, datetime
from typing import Any

import grpc
import numpy as np
import pytest
from papa_serving.client import (
    AsyncClient,
    CallFailed,
    Client,
    DeadlineExceeded,
    EventNotFound,
    FeedbackEvent,
    ImageFormat,
    ImageOptions,
    InvalidRequest,
    ItemNotFound,
    QueueFull,
    RevisionNotFound,
    Sampler,
    ServedBy,
    User,
    UserDeleted,
    request_id,
)
from papa_serving.client.records import GenerateOptions
from papa_serving.contracts.identity import UserKey
from PIL import Image

from tests.client.conftest import Connect
from tests.gateway.support.doubles import revision
from tests.gateway.support.fake_engine import NOISE_VERSION, by_user, done, error, fail, items, wait
from tests.gateway.support.service import Service, eventually

ALICE = UserKey("default", "alice")


def png() -> bytes:
    data = io.BytesIO()
    Image.fromarray(np.arange(28 * 28, dtype=np.uint8).reshape(28, 28)).save(data, "PNG")
    return data.getvalue()


async def test_generate(service: Service, client: Any) -> None:
    service.engine.scripts = [[items(1, adapter=False, exploring=True), items(0), done(drawn=4, accepted=2)]]
    generation = await client.generate(
        User("bob", tenant="shop"),
        2,
        seed=7,
        sampler=Sampler.DDIM,
        steps=5,
        revision="base",
        exploration=0.5,
        min_like_probability=0.25,
        overdraw=3.0,
        timeout=9,
    )
    sent = service.engine.requests[0]
    assert (sent.tenant, sent.user, sent.count, sent.seed) == ("shop", "bob", 2, 7)
    assert (sent.sampler, sent.steps, sent.revision, sent.exploration) == ("ddim", 5, "base", 0.5)
    assert 0 < (service.engine.timeouts[0] or 0) < 10
    assert generation.generation_id == sent.generation_id
    assert (generation.revision, generation.served_by) == ("000001-aa", ServedBy.ADAPTER)
    assert generation.timings.denoising == 0.5
    assert (sent.min_like_probability, sent.overdraw) == (0.25, 3.0)
    assert generation.noise_version == NOISE_VERSION
    assert (generation.acceptance, generation.drawn) == (0.5, 4)
    first, second = generation.items
    assert (first.index, first.seed, first.content_type, first.served_by) == (0, 7, "image/png", ServedBy.ADAPTER)
    assert second.served_by is ServedBy.BASE
    assert (first.exploring, second.exploring) == (False, True)
    assert "image=" not in repr(first), "bytes have no place in logs"


async def test_generate_many(service: Service, client: Any) -> None:
    service.engine.scripts = [[by_user({"bob": error("QUEUE_FULL", "full", retry_after=2.0)}), done()]]
    users = ["alice", User("bob", tenant="shop"), *(f"u{n}" for n in range(110))]
    with request_id("many-1"):
        results = [result async for result in client.generate_many(users, 2, seed=7, steps=5)]
    found = {result.user: result for result in results}
    assert set(found) == set(users)
    failed = found.pop(User("bob", tenant="shop"))
    assert isinstance(failed.error, QueueFull)
    assert (failed.generation, failed.error.retry_after, failed.error.request_id) == (None, 2.0, "many-1")
    for result in found.values():
        assert result.error is None
        assert [item.seed for item in result.generation.items] == [7, 8]
        assert result.generation.request_id == "many-1"
    assert {request.steps for request in service.engine.requests} == {5}
    with pytest.raises(InvalidRequest, match="count"):
        _ = [result async for result in client.generate_many(["alice"], -1)]


async def test_get_item(service: Service, client: Any) -> None:
    found = await client.get_item(User("bob", tenant="shop"), "g-3", image=ImageOptions(ImageFormat.WEBP, max_edge=9))
    (sent,) = service.engine.rendered
    assert (sent.tenant, sent.user, sent.image.format, sent.image.max_edge) == ("shop", "bob", "webp", 9)
    assert (found.item.item_id, found.item.image, found.item.content_type) == ("g-3", b"\x03" * 16, "image/webp")
    assert (found.generation_id, found.revision, found.prompt) == ("g", "000001-aa", "a boot")
    with pytest.raises(ItemNotFound):
        await client.get_item("bob", "gone")
    with pytest.raises(InvalidRequest, match="give an ImageOptions"):
        await client.get_item("bob", "g-3", image=ImageOptions(quality="high"))  # type: ignore[arg-type]
    assert (await client.get_item("bob", "g-1")).item.content_type == "image/png"


async def test_list_users(service: Service, connect: Connect) -> None:
    client = connect(service.gateway.address, tenant="shop")
    likes = [FeedbackEvent(User(f"u{n}", tenant), 1.0, image=png()) for n in range(5) for tenant in ("shop", "other")]
    await client.submit_feedback(likes)
    assert sorted([state.user async for state in client.list_users(page_size=2)]) == [f"u{n}" for n in range(5)]
    assert {(state.tenant, state.likes) async for state in client.list_users(tenant="other")} == {("other", 1)}
    with pytest.raises(InvalidRequest):
        _ = [state async for state in client.list_users(page_size=-1)]


async def test_what_is_not_asked_for_is_left_to_the_server(service: Service, client: Any) -> None:
    await client.generate("alice", 1)
    sent = service.engine.requests[0]
    assert (sent.tenant, sent.sampler, sent.steps, sent.revision, sent.exploration) == ("default", "", 0, "", -1.0)


async def test_stream_generate(service: Service, client: Any) -> None:
    gate = asyncio.Event()
    service.engine.scripts = [[items(1), wait(gate), items(0), done(drawn=4, accepted=2)]]
    stream = client.stream_generate("alice", 2)
    assert (await anext(stream)).index == 1
    assert stream.timings is None
    gate.set()
    assert [item.index async for item in stream] == [0]
    assert (stream.revision, stream.served_by) == ("000001-aa", ServedBy.ADAPTER)
    assert stream.timings.denoising == 0.5
    assert stream.noise_version == NOISE_VERSION
    assert (stream.acceptance, stream.drawn) == (0.5, 4)
    assert stream.generation_id == service.engine.requests[0].generation_id


async def test_images_on_demand(service: Service, client: Any) -> None:
    item = (await client.generate("alice", 1)).items[0]
    picture = type(item)(item.item_id, png(), "image/png", 0, 0, ServedBy.BASE)
    assert picture.pil().size == (28, 28)
    assert picture.numpy().shape == (28, 28)
    assert picture.numpy()[0, 5] == 5


async def test_submit_feedback(service: Service, client: Any) -> None:
    service.log.missing = {"gone"}
    at = datetime(2026, 11, 1, 12, 30, tzinfo=UTC)
    events = [
        FeedbackEvent("alice", 1.0, item_id="a", occurred_at=at),
        FeedbackEvent("alice", -0.5, image=png(), event_id="mine"),
        FeedbackEvent("alice", 1.0, item_id="gone"),
    ]
    first, second, third = await client.submit_feedback(events)
    assert (first.accepted, first.sequence, first.duplicate) == (True, 1, False)
    assert (second.event_id, second.sequence) == ("mine", 2)
    assert not third.accepted
    assert isinstance(third.error, ItemNotFound)
    assert [event.grade for event in service.log.accepted] == [1.0, -0.5]
    assert service.log.accepted[0].occurred_at == at.timestamp()
    assert len(service.log.accepted[0].event_id) == 32
    assert (await client.submit_feedback(events))[0].duplicate


async def test_like_and_dislike(service: Service, client: Any) -> None:
    assert (await client.like("alice", "a")).sequence == 1
    assert (await client.dislike("alice", "b")).sequence == 2
    assert [event.grade for event in service.log.accepted] == [1.0, -1.0]
    service.log.missing = {"gone"}
    with pytest.raises(ItemNotFound) as raised:
        await client.like("alice", "gone")
    assert raised.value.request_id


@pytest.mark.parametrize("event", [FeedbackEvent("alice", 1.0), FeedbackEvent("alice", 1.0, item_id="a", image=b"b")])
async def test_an_event_about_nothing_or_two_things(service: Service, client: Any, event: FeedbackEvent) -> None:
    with pytest.raises(InvalidRequest, match="one of them"):
        await client.submit_feedback([event])
    assert service.log.groups == []


async def test_stream_feedback(service: Service, client: Any) -> None:
    events = [FeedbackEvent("alice", 1.0, item_id=f"i{i}", event_id=f"e{i}") for i in range(100)]
    events[50] = FeedbackEvent("alice", 0.0, item_id="i50", event_id="e50")
    outcomes = [outcome async for outcome in client.stream_feedback(events, window=8)]
    assert [outcome.event_id for outcome in outcomes] == [f"e{i}" for i in range(100)]
    assert [outcome.accepted for outcome in outcomes].index(False) == 50
    assert isinstance(outcomes[50].error, InvalidRequest)
    assert outcomes[50].error.violations[0].field == "grade"
    assert len(service.log.accepted) == 99


async def test_users(service: Service, client: Any) -> None:
    assert (await client.get_user("alice")).current_revision is None
    for number in range(1, 6):
        service.users.commit(ALICE, revision(number))
    await client.like("alice", "a")
    state = await client.get_user("alice")
    assert (state.tenant, state.user, state.likes, state.dislikes, state.pending_events) == (
        "default",
        "alice",
        1,
        0,
        1,
    )
    current = state.current_revision
    assert (current.name, current.events_total, current.sha256) == ("000005-aa", 50, "ab" * 32)
    assert current.created_at == datetime.fromtimestamp(1_700_000_005.5, UTC)
    names = [each.name async for each in client.list_revisions("alice", page_size=2)]
    assert names == [f"{number:06}-aa" for number in (5, 4, 3, 2, 1)]
    assert (await client.rollback("alice", "000002-aa")).current_revision.name == "000002-aa"
    with pytest.raises(RevisionNotFound):
        await client.rollback("alice", "000009-aa")
    assert (await client.reset("alice")).current_revision is None
    receipt = await client.delete_user("alice")
    assert (receipt.events, receipt.revisions) == (1, 5)
    assert receipt.deleted_at.tzinfo is not None
    with pytest.raises(UserDeleted):
        await client.get_user("alice")


async def test_watching(service: Service, client: Any) -> None:
    watch = client.watch_user("alice")
    assert (await anext(watch)).likes == 0
    service.users.change(ALICE, likes=3)
    assert (await anext(watch)).likes == 3


async def test_waiting_for_a_revision(service: Service, client: Any) -> None:
    service.users.commit(ALICE, revision(1))
    waiting = asyncio.ensure_future(client.wait_for_revision("alice", after="000001-aa"))
    await eventually(lambda: service.users.watchers(ALICE) == 1)
    service.users.change(ALICE, likes=3)
    service.users.commit(ALICE, revision(2))
    assert (await asyncio.wait_for(waiting, 60)).name == "000002-aa"
    assert (await client.wait_for_revision("alice")).name == "000002-aa"
    await eventually(lambda: service.users.watchers(ALICE) == 0)


async def test_waiting_until_everything_is_applied(service: Service, client: Any) -> None:
    await client.like("alice", "a")
    service.users.commit(ALICE, revision(1))
    waiting = asyncio.ensure_future(client.wait_for_revision("alice", settled=True))
    await eventually(lambda: service.users.watchers(ALICE) == 1)
    service.state.partition_of(ALICE).events.clear()
    service.users.commit(ALICE, revision(2))
    assert (await asyncio.wait_for(waiting, 60)).name == "000002-aa"


async def test_waiting_in_vain(service: Service, client: Any) -> None:
    says = r"alice had no revision in time: the current revision is none, 0 events are pending, 0 are dead letters"
    with pytest.raises(DeadlineExceeded, match=says):
        await client.wait_for_revision("alice", timeout=0.3)
    await client.like("alice", "a")
    service.users.commit(ALICE, revision(1))
    says = (
        r"no revision newer than 000001-aa with no event pending in time: the current revision is 000001-aa, 1 events"
    )
    with pytest.raises(DeadlineExceeded, match=says):
        await client.wait_for_revision("alice", after="000001-aa", settled=True, timeout=0.3)
    await eventually(lambda: service.users.watchers(ALICE) == 0)


@pytest.mark.parametrize(
    ("count", "options", "says"),
    [
        (-1, {}, "count: -1 is out of range"),
        (2**40, {}, "count: 1099511627776 is out of range"),
        ("4", {}, "count: '4' is out of range or of another type"),
        (4, {"steps": -5}, "steps: -5 is out of range"),
        (4, {"seed": 2**64}, "seed: 18446744073709551616 is out of range"),
        (4, {"step": 5}, "step: there is no such option; did you mean steps?"),
        (4, {"colour": "red"}, "colour: there is no such option; there are prompt, seed, "),
        (4, {"sampler": "ddim"}, "sampler: give a Sampler"),
        (4, {"image": "webp"}, "image: give an ImageOptions"),
        (4, {"image": ImageOptions("webp")}, "image: give an ImageOptions"),
        (4, {"image": ImageOptions(ImageFormat.WEBP, max_edge=-1)}, "image: give an ImageOptions"),
        (4, {"prompt": 5}, "prompt: 5 is out of range or of another type"),
    ],
)
async def test_what_no_message_can_hold_is_refused_by_the_name_of_its_option(
    client: Any, count: Any, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await client.generate("alice", count, **options)
    assert says in str(refused.value)


@pytest.mark.parametrize("method", ["generate", "stream_generate"])
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_every_option_of_a_generation_is_in_the_signature(kind: type[object], method: str) -> None:
    shown = inspect.signature(getattr(kind, method)).parameters
    assert set(GenerateOptions.__annotations__) <= set(shown)
    assert all(each.kind is not each.VAR_KEYWORD for each in shown.values())


async def test_a_call_tells_its_request_id_when_it_succeeds_and_when_it_fails(service: Service, client: Any) -> None:
    generation = await client.generate("alice", 1)
    assert generation.request_id == service.engine.requests[-1].request_id
    with request_id("order-4711"):
        assert (await client.generate("alice", 1)).request_id == "order-4711"
        stream = client.stream_generate("alice", 1)
        assert [item async for item in stream]
        assert stream.request_id == "order-4711"
        with pytest.raises(InvalidRequest) as refused:
            await client.generate("alice", 10**6)
    assert [sent.request_id for sent in service.engine.requests[1:]] == ["order-4711"] * 2
    assert refused.value.request_id == "order-4711"
    assert (await client.generate("alice", 1)).request_id not in ("", "order-4711", generation.request_id)


async def test_a_deadline(service: Service, client: Any) -> None:
    service.engine.scripts = [[wait(asyncio.Event())]]
    with pytest.raises(DeadlineExceeded):
        await client.generate("alice", 1, timeout=0.3)
    await asyncio.wait_for(service.engine.cancelled.wait(), 60)


async def test_cancelling_a_stream(service: Service, client: Any) -> None:
    service.engine.scripts = [[items(0), wait(asyncio.Event())]]
    stream = client.stream_generate("alice", 2)
    await anext(stream)
    stream.cancel()
    await asyncio.wait_for(service.engine.cancelled.wait(), 60)


async def test_violations(service: Service, client: Any) -> None:
    with pytest.raises(InvalidRequest) as raised:
        await client.generate("", 0)
    assert {violation.field for violation in raised.value.violations} == {"user.user", "count"}
    assert all(violation.description for violation in raised.value.violations)
    assert raised.value.request_id


async def test_an_error_of_the_engine(service: Service, client: Any) -> None:
    service.engine.scripts = [[error("QUEUE_FULL", "come back", retry_after=60.0)]]
    with pytest.raises(QueueFull, match="come back") as raised:
        await client.generate("alice", 1, timeout=5)
    assert raised.value.retry_after == 60.0
    assert len(service.engine.requests) == 1, "a delay beyond the time-out is not waited for"


async def test_a_message_that_is_too_large_is_not_tried_again(unstarted: Service, connect: Any) -> None:
    await unstarted.start(max_message_bytes=10_000)
    client = connect(unstarted.gateway.address)
    with pytest.raises(CallFailed) as raised:
        await client.submit_feedback([FeedbackEvent("alice", 1.0, image=bytes(20_000))])
    assert raised.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_serving(service: Service, client: Any, connect: Any) -> None:
    await service.until_serving("papa.serving.v1.GenerationService")
    assert await client.is_serving()
    assert not await client.is_serving("papa.serving.v1.Nothing")
    assert not await connect("127.0.0.1:1").is_serving(timeout=0.5)


async def test_the_tenant_of_a_client(service: Service, connect: Any) -> None:
    client = connect(service.gateway.address, tenant="shop")
    assert (await client.get_user("alice")).tenant == "shop"
    assert (await client.get_user(User("alice", tenant="other"))).tenant == "other"


async def test_a_generator_that_fails_for_good(service: Service, client: Any) -> None:
    service.engine.scripts = [[fail(grpc.StatusCode.UNAVAILABLE)]]
    with pytest.raises(Exception, match="no generator answers") as raised:
        await client.generate("alice", 1, timeout=0.5)
    assert raised.type.__name__ == "GeneratorUnavailable"


async def test_a_like_is_taken_back(client: Any) -> None:
    like = FeedbackEvent("alice", 1.0, image=png())
    await client.submit_feedback([like])
    assert (await client.take_back("alice", like.event_id)).accepted
    state = await client.get_user("alice")
    assert (state.likes, state.pending_events) == (0, 0)
    with pytest.raises(EventNotFound):
        await client.take_back("alice", "never said")


async def test_a_guest_is_merged_into_a_member(client: Any) -> None:
    await client.submit_feedback([FeedbackEvent("guest", 1.0, image=png())])
    receipt = await client.merge_users("guest", "alice")
    assert receipt.events == 1
    assert "append-only file" in receipt.remains
    assert (await client.get_user("alice")).likes == 1
    assert await client.merge_users("guest", "alice") == receipt
    with pytest.raises(InvalidRequest, match="another user"):
        await client.merge_users("alice", "alice")
