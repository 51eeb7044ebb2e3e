"""Rates: whoever uses up their own is told when to come back, and nobody else notices."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import pytest
from papa_serving.contracts.errors import RateLimited
from papa_serving.contracts.identity import UserKey
from papa_serving.gateway.conversion.picture_reader import PictureReader
from papa_serving.gateway.rpc.admission import SMALLEST_SWEEP, Buckets, Meter
from papa_serving.settings import RateSettings
from papa_serving.stubs.serving.v1 import dead_letter_pb2, feedback_pb2, generation_pb2, types_pb2, user_pb2

from tests.gateway.support.fake_engine import done, items
from tests.gateway.support.methods import METHODS, Method, like, refused_within
from tests.gateway.support.service import Refusal, Service, refusal

ALICE, BOB = types_pb2.User(user="alice"), types_pb2.User(user="bob")
SLOW = {"user": 0.01, "user_burst": 3.0}


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def charged(meter: Meter, key: UserKey, cost: float = 1.0) -> float:
    """0 when it went through, else the seconds to wait."""
    try:
        meter.charge(key, cost)
    except RateLimited as error:
        assert error.retry_after is not None
        return error.retry_after
    return 0.0


def test_a_bucket_refills_and_holds_no_more_than_its_burst() -> None:
    clock = Clock()
    meter, key = Meter(RateSettings(user=2.0, user_burst=4.0), clock), UserKey("shop", "alice")
    assert [charged(meter, key) for _ in range(5)] == [0, 0, 0, 0, pytest.approx(0.5)]
    clock.now += 0.5
    assert [charged(meter, key) for _ in range(2)] == [0, pytest.approx(0.5)]
    clock.now += 1_000
    assert [charged(meter, key) for _ in range(5)] == [0, 0, 0, 0, pytest.approx(0.5)]


def test_what_is_larger_than_a_bucket_passes_when_it_is_full_and_is_owed() -> None:
    clock = Clock()
    meter, key = Meter(RateSettings(user=1.0, user_burst=10.0), clock), UserKey("shop", "alice")
    assert charged(meter, key, 30.0) == 0
    assert charged(meter, key) == pytest.approx(21.0)
    clock.now += 21.0
    assert charged(meter, key) == 0


def test_a_refusal_by_one_limit_costs_nothing_of_the_other() -> None:
    clock = Clock()
    meter = Meter(RateSettings(user=1.0, user_burst=1.0, tenant=1.0, tenant_burst=3.0), clock)
    alice, others = UserKey("shop", "alice"), [UserKey("shop", str(number)) for number in range(3)]
    assert charged(meter, alice) == 0
    for _ in range(20):
        assert charged(meter, alice) > 0
    assert [charged(meter, other) > 0 for other in others] == [False, False, True]
    assert charged(meter, UserKey("rival", "alice")) == 0


def test_users_who_went_away_take_no_memory() -> None:
    buckets = Buckets(1.0, 5.0)
    for number in range(100_000):
        buckets.take(number, 1.0, number / 100)
    assert len(buckets) < 3 * SMALLEST_SWEEP


def test_without_a_rate_nothing_is_counted() -> None:
    meter = Meter(RateSettings())
    assert {charged(meter, UserKey("shop", "alice"), 1e9) for _ in range(100)} == {0}
    assert len(meter.users) + len(meter.tenants) == 0


@pytest.fixture
async def slow(unstarted: Service) -> AsyncIterator[Service]:
    await unstarted.start(rates=SLOW)
    yield unstarted


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
async def test_every_method_that_names_a_user_counts(slow: Service, method: Method) -> None:
    outcomes = []
    for _ in range(5):
        try:
            response = await method.first(slow.channel, method.good(ALICE))
        except grpc.aio.AioRpcError as failure:
            outcomes.append(Refusal(failure).reason)
        else:
            outcomes.append(refused_within(response))
    assert outcomes[0] != "RATE_LIMITED"
    assert outcomes[-1] == "RATE_LIMITED"
    await slow.user.GetUser(user_pb2.GetUserRequest(user=BOB))


async def test_the_answer_says_whose_limit_it_is_and_when_to_come_back(slow: Service) -> None:
    call = slow.generation.Generate(generation_pb2.GenerateRequest(user=ALICE, count=3))
    await call
    refused = await refusal(slow.generation.Generate(generation_pb2.GenerateRequest(user=ALICE, count=2)))
    assert (refused.code, refused.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED")
    assert refused.quotas == {"user:alice"}
    assert refused.retry_after == pytest.approx(200.0, rel=0.05)


async def test_draws_beyond_the_items_are_charged_as_they_are_made(slow: Service) -> None:
    """One item is admitted; the three further draws that it took leave a debt, which ends the next call."""
    slow.engine.scripts = [[items(0, drawn=2), done(drawn=4, accepted=1)]]
    await slow.generation.Generate(generation_pb2.GenerateRequest(user=ALICE, count=1))
    refused = await refusal(slow.generation.Generate(generation_pb2.GenerateRequest(user=ALICE, count=1)))
    assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert refused.retry_after == pytest.approx(200, abs=1), "for a burst of three, four draws and one more at 0.01/s"


async def test_a_batch_of_one_user_is_taken_or_left_as_a_whole(slow: Service) -> None:
    events = [feedback_pb2.FeedbackEvent(event_id=f"{u.user}{n}", user=u, item_id="i", grade=1.0)
              for u, count in ((ALICE, 2), (BOB, 1), (ALICE, 2)) for n in range(count)]  # fmt: skip
    for index, event in enumerate(events):
        event.event_id = str(index)
    first = await slow.feedback.SubmitFeedback(feedback_pb2.SubmitFeedbackRequest(events=events))
    assert [outcome.ack.sequence for outcome in first.outcomes] == [1, 2, 1, 3, 4], "four at once from a full bucket"
    for event in events:
        event.event_id += "again"
    second = await slow.feedback.SubmitFeedback(feedback_pb2.SubmitFeedbackRequest(events=events))
    assert [outcome.error.reason for outcome in second.outcomes] == ["RATE_LIMITED"] * 2 + [""] + ["RATE_LIMITED"] * 2
    assert second.outcomes[0].error.retry_after_seconds > 0


async def test_in_a_stream_the_refused_get_their_outcome(slow: Service) -> None:
    call = slow.feedback.StreamFeedback()
    outcomes = []
    for number in range(5):
        event = like(ALICE)
        event.event_id = str(number)
        await call.write(feedback_pb2.StreamFeedbackRequest(event=event))
        outcomes.append((await call.read()).outcome)
    assert [outcome.error.reason for outcome in outcomes] == ["", "", "", "RATE_LIMITED", "RATE_LIMITED"]


async def test_pictures_are_charged_before_they_are_decoded(
    unstarted: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def read(*_: object) -> bytes:
        raise AssertionError("decoded")

    monkeypatch.setattr(PictureReader, "read", read)
    await unstarted.start(rates={"user": 0.01, "user_burst": 1.0})
    await unstarted.feedback.SubmitFeedback(feedback_pb2.SubmitFeedbackRequest(events=[like(ALICE)]))
    image = feedback_pb2.CatalogueImage(data=b"\x89PNG\r\n\x1a\n")
    event = feedback_pb2.FeedbackEvent(event_id="p", user=ALICE, image=image, signal=feedback_pb2.SIGNAL_LIKE)
    refused = await refusal(unstarted.feedback.SubmitFeedback(feedback_pb2.SubmitFeedbackRequest(events=[event])))
    assert refused.reason == "RATE_LIMITED"


@pytest.mark.parametrize("method", ["ListUsers", "ListDeadLetters"])
async def test_a_list_of_a_whole_tenant_is_charged_to_it(unstarted: Service, method: str) -> None:
    """A list of all tenants, which needs no credential, to the caller's own."""
    await unstarted.start(rates={"tenant": 0.01, "tenant_burst": 2.0})

    async def ask(tenant: str) -> str:
        try:
            if method == "ListUsers":
                await unstarted.user.ListUsers(user_pb2.ListUsersRequest(tenant=tenant))
            else:
                user = types_pb2.User(tenant=tenant) if tenant else None
                await unstarted.dead_letters.ListDeadLetters(dead_letter_pb2.ListDeadLettersRequest(user=user))
        except grpc.aio.AioRpcError as failure:
            return Refusal(failure).reason
        return ""

    for tenant in ("shop", ""):
        assert [await ask(tenant) for _ in range(3)] == ["", "", "RATE_LIMITED"]
    assert await ask("other") == ""
