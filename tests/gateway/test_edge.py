"""The edge of every RPC: request ids, identity, limits, metrics, and unexpected errors."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

import grpc
import pytest
from papa_serving.contracts.errors import StorageDamaged, StorageUnavailable, Unauthenticated
from papa_serving.contracts.identity import UserKey
from papa_serving.gateway.api.feedback import COHORTS, cohort_of
from papa_serving.gateway.auth.identity import Identity
from papa_serving.logs import request_id
from papa_serving.stubs.serving.v1 import feedback_pb2, generation_pb2, types_pb2, user_pb2
from prometheus_client import REGISTRY

from tests.gateway.support.fake_engine import wait
from tests.gateway.support.service import Service, eventually, refusal

ALICE = types_pb2.User(user="alice")
GET = user_pb2.GetUserRequest(user=ALICE)


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


async def trailers(call: grpc.aio.Call) -> dict[str, str]:
    return dict(await call.trailing_metadata())


async def test_a_callers_request_id_comes_back_and_a_missing_one_is_made(service: Service) -> None:
    call = service.user.GetUser(GET, metadata=(("x-request-id", "order-17"),))
    await call
    assert (await trailers(call))["x-request-id"] == "order-17"
    made = []
    for bad in (None, "", "x" * 129, "two words"):
        call = service.user.GetUser(GET, metadata=None if bad is None else (("x-request-id", bad),))
        await call
        made.append((await trailers(call))["x-request-id"])
    assert len(set(made)) == 4
    assert all(len(each) == 32 for each in made)


async def test_an_error_carries_the_request_id(service: Service) -> None:
    call = service.user.GetUser(user_pb2.GetUserRequest(), metadata=(("x-request-id", "order-18"),))
    refused = await refusal(call)
    assert refused.trailers["x-request-id"] == "order-18"
    assert refused.metadata["request_id"] == "order-18"


async def test_log_lines_of_a_call_know_its_request_id(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    seen = []
    handler = logging.Handler()
    handler.emit = lambda record: seen.append((record.getMessage(), request_id.get()))  # type: ignore[method-assign]
    logging.getLogger("papa_serving.gateway.rpc.edge").addHandler(handler)
    service.users.failure = StorageUnavailable("redis is away")
    await refusal(service.user.GetUser(GET, metadata=(("x-request-id", "order-19"),)))
    logging.getLogger("papa_serving.gateway.rpc.edge").removeHandler(handler)
    assert seen == [("UserService/GetUser: redis is away", "order-19")], "the log says what the caller is not told"


async def test_an_unexpected_exception_leaks_nothing_and_is_logged(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    service.users.failure = KeyError("secret-password")
    refused = await refusal(service.user.GetUser(GET))
    assert (refused.code, refused.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert "secret" not in refused.message + str(refused.metadata)
    record = next(record for record in caplog.records if record.levelname == "ERROR")
    assert record.exc_info is not None
    assert "secret-password" in str(record.exc_info[1])


async def test_of_damaged_data_the_log_tells_what_the_caller_is_not_told(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    service.users.failure = StorageDamaged("the record begins with a brace")
    refused = await refusal(service.user.GetUser(GET))
    assert refused.reason == "STORAGE_DAMAGED" and "request id" in refused.message
    record = next(record for record in caplog.records if "begins with a brace" in record.getMessage())
    assert record.exc_info is not None


async def test_an_unexpected_exception_in_a_stream(service: Service) -> None:
    service.log.failure = KeyError("secret-password")
    call = service.feedback.StreamFeedback()
    event = feedback_pb2.FeedbackEvent(event_id="e", user=ALICE, item_id="i", grade=1.0)
    await call.write(feedback_pb2.StreamFeedbackRequest(event=event))
    refused = await refusal(call)
    assert (refused.code, refused.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert "secret" not in refused.message


@pytest.mark.parametrize("method", ["/papa.serving.v1.UserService/GetUser", "/papa.serving.v1.UserService/WatchUser"])
async def test_bytes_that_are_no_message(service: Service, method: str) -> None:
    kind = service.channel.unary_stream if method.endswith("WatchUser") else service.channel.unary_unary
    refused = await refusal(kind(method)(b"\xff\xff\xff\xff"))
    assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")


async def test_bytes_that_are_no_message_in_a_stream(service: Service) -> None:
    method = service.channel.stream_stream("/papa.serving.v1.FeedbackService/StreamFeedback")
    event = feedback_pb2.FeedbackEvent(event_id="e", user=ALICE, item_id="i", grade=1.0)
    good = feedback_pb2.StreamFeedbackRequest(event=event).SerializeToString()
    answers = aiter(method(iter([good, b"\xff\xff"])))
    assert feedback_pb2.StreamFeedbackResponse.FromString(await anext(answers)).outcome.ack.sequence == 1
    refused = await refusal(answers)
    assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")


async def test_a_method_that_does_not_exist(service: Service) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await service.channel.unary_unary("/papa.serving.v1.UserService/Nothing")(b"")
    assert failure.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_message_over_the_limit_is_refused_in_words(unstarted: Service) -> None:
    await unstarted.start(max_message_bytes=10_000)
    event = feedback_pb2.FeedbackEvent(event_id="e", user=ALICE, item_id="i" * 15_000, grade=1.0)
    refused = await refusal(unstarted.feedback.SubmitFeedback(feedback_pb2.SubmitFeedbackRequest(events=[event])))
    assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert "10000 are the most" in refused.message
    assert unstarted.log.groups == []
    await unstarted.user.GetUser(GET)


async def test_a_message_far_over_the_limit_is_not_read(unstarted: Service) -> None:
    await unstarted.start(max_message_bytes=10_000)
    event = feedback_pb2.FeedbackEvent(event_id="e", user=ALICE, item_id="i" * 30_000, grade=1.0)
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await unstarted.feedback.SubmitFeedback(feedback_pb2.SubmitFeedbackRequest(events=[event]))
    assert failure.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert unstarted.log.groups == []
    await unstarted.user.GetUser(GET)


async def test_a_large_event_does_not_end_its_stream(service: Service) -> None:
    image = feedback_pb2.CatalogueImage(data=b"x" * (9 * 2**20))
    events = [
        feedback_pb2.FeedbackEvent(event_id="e1", user=ALICE, item_id="i", grade=1.0),
        feedback_pb2.FeedbackEvent(event_id="e2", user=ALICE, image=image, grade=1.0),
        feedback_pb2.FeedbackEvent(event_id="e3", user=ALICE, item_id="i", grade=1.0),
    ]
    requests = [feedback_pb2.StreamFeedbackRequest(event=event) for event in events]
    outcomes = [each.outcome async for each in service.feedback.StreamFeedback(iter(requests))]
    assert [each.error.reason for each in outcomes] == ["", "INVALID_REQUEST", ""]
    assert outcomes[1].error.field == "image.data"


async def test_calls_beyond_the_limit_are_told_when_to_try_again(unstarted: Service) -> None:
    await unstarted.start(max_concurrent_rpcs=2)
    gate = asyncio.Event()
    unstarted.engine.scripts = [[wait(gate)]]
    request = generation_pb2.GenerateRequest(user=ALICE, count=1)
    other = generation_pb2.GenerateRequest(user=types_pb2.User(user="bob"), count=1)
    calls = [unstarted.generation.Generate(each) for each in (request, other)]
    waiting = [asyncio.ensure_future(refusal(call)) for call in calls]
    await eventually(lambda: len(unstarted.engine.requests) == 2)
    refused = await refusal(unstarted.user.GetUser(GET))
    assert (refused.code, refused.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
    assert refused.retry_after is not None
    assert await unstarted.serving(""), "health checks pass beside the limit"
    gate.set()
    await asyncio.gather(*waiting)
    await unstarted.user.GetUser(GET)


async def test_metrics_of_a_call(service: Service) -> None:
    method = {"method": "UserService/GetUser"}
    handled = {code: counted("papa_rpc_handled_total", code=code, **method) for code in ("OK", "INVALID_ARGUMENT")}
    timed = counted("papa_rpc_duration_seconds_count", **method)
    await service.user.GetUser(GET)
    await refusal(service.user.GetUser(user_pb2.GetUserRequest()))
    # A call is counted after its answer has left.
    for code, before in handled.items():
        await eventually(lambda: counted("papa_rpc_handled_total", code=code, **method) == before + 1)  # noqa: B023
    await eventually(lambda: counted("papa_rpc_duration_seconds_count", **method) == timed + 2)
    await eventually(lambda: counted("papa_rpc_in_flight", **method) == 0)


@pytest.mark.parametrize(("seconds", "code"), [(None, "CANCELLED"), (0.2, "DEADLINE_EXCEEDED")])
async def test_metrics_of_a_call_that_its_caller_ends(service: Service, seconds: float | None, code: str) -> None:
    labels = {"method": "GenerationService/Generate", "code": code}
    before = counted("papa_rpc_handled_total", **labels)
    service.engine.scripts = [[wait(asyncio.Event())]]
    call = service.generation.Generate(generation_pb2.GenerateRequest(user=ALICE, count=1), timeout=seconds)
    await asyncio.wait_for(service.engine.running.wait(), 60)
    if seconds is None:
        call.cancel()
    await eventually(lambda: counted("papa_rpc_handled_total", **labels) == before + 1)
    await eventually(lambda: counted("papa_rpc_in_flight", method="GenerationService/Generate") == 0)


async def test_metrics_of_feedback(service: Service) -> None:
    def outcomes(name: str) -> float:
        return counted("papa_feedback_events_total", outcome=name)

    names = ("accepted", "duplicate", "ITEM_NOT_FOUND")
    before = {name: outcomes(name) for name in names}
    likes = counted("papa_feedback_labels_total", label="like", cohort="1-10")
    service.log.missing = {"gone"}
    events = [
        feedback_pb2.FeedbackEvent(event_id=item, user=ALICE, item_id=item, signal=feedback_pb2.SIGNAL_LIKE)
        for item in ("a", "b", "a", "gone")
    ]
    await service.feedback.SubmitFeedback(feedback_pb2.SubmitFeedbackRequest(events=events))
    assert [outcomes(name) - before[name] for name in names] == [2, 1, 1]
    assert counted("papa_feedback_labels_total", label="like", cohort="1-10") == likes + 2


async def test_labels_count_in_the_cohort_of_their_number(service: Service) -> None:
    def counts() -> dict[tuple[str, str], float]:
        return {
            (label, cohort): counted("papa_feedback_labels_total", label=label, cohort=cohort)
            for label in ("like", "dislike")
            for cohort in COHORTS
        }

    user, before = types_pb2.User(user="prolific"), counts()
    events = [
        feedback_pb2.FeedbackEvent(event_id=f"o{n}", user=user, item_id="i", grade=1.0 if n <= 10 else -1.0)
        for n in range(1, 36)
    ]
    await service.feedback.SubmitFeedback(feedback_pb2.SubmitFeedbackRequest(events=events))
    after = counts()
    grown = {key: after[key] - before[key] for key in after if after[key] != before[key]}
    assert grown == {("like", "1-10"): 10, ("dislike", "11-30"): 20, ("dislike", "31-100"): 5}
    never = REGISTRY.get_sample_value("papa_feedback_labels_total", {"label": "like", "cohort": "31-100"})
    assert never is not None, "a share of likes of 0 is shown, too"


@pytest.mark.parametrize(
    ("sequence", "cohort"),
    [(1, "1-10"), (10, "1-10"), (11, "11-30"), (1000, "301-1000"), (1001, "1001+"), (10**9, "1001+")],
)
def test_cohorts_are_few_and_fixed(sequence: int, cohort: str) -> None:
    assert cohort_of(sequence) == cohort


async def by_token(metadata: Mapping[str, str]) -> Identity:
    token = metadata.get("authorization", "").removeprefix("Bearer ")
    if not token:
        raise Unauthenticated("send a bearer token")
    return Identity(tenant=token, bound=True)


async def test_a_credential_binds_the_tenant_of_every_method(unstarted: Service) -> None:
    await unstarted.start(authenticate=by_token)
    shop = (("authorization", "Bearer shop"),)
    own, foreign = types_pb2.User(user="alice"), types_pb2.User(tenant="rival", user="alice")
    state = (await unstarted.user.GetUser(user_pb2.GetUserRequest(user=own), metadata=shop)).state
    assert state.user.tenant == "shop"
    calls = {
        unstarted.generation.Generate: generation_pb2.GenerateRequest(user=foreign, count=1),
        unstarted.generation.StreamGenerate: generation_pb2.StreamGenerateRequest(user=foreign, count=1),
        unstarted.user.GetUser: user_pb2.GetUserRequest(user=foreign),
        unstarted.user.WatchUser: user_pb2.WatchUserRequest(user=foreign),
        unstarted.user.ListRevisions: user_pb2.ListRevisionsRequest(user=foreign),
        unstarted.user.RollbackAdapter: user_pb2.RollbackAdapterRequest(user=foreign, revision="r"),
        unstarted.user.ResetUser: user_pb2.ResetUserRequest(user=foreign),
        unstarted.user.DeleteUser: user_pb2.DeleteUserRequest(user=foreign),
        unstarted.feedback.SubmitFeedback: feedback_pb2.SubmitFeedbackRequest(
            events=[feedback_pb2.FeedbackEvent(event_id="e", user=foreign, item_id="i", grade=1.0)]
        ),
    }
    for method, request in calls.items():
        refused = await refusal(method(request, metadata=shop))
        assert (refused.code, refused.reason) == (grpc.StatusCode.PERMISSION_DENIED, "FORBIDDEN")
        refused = await refusal(method(request))
        assert (refused.code, refused.reason) == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
    stream = unstarted.feedback.StreamFeedback(
        iter(
            feedback_pb2.StreamFeedbackRequest(
                event=feedback_pb2.FeedbackEvent(event_id="e", user=user, item_id="i", grade=1.0)
            )
            for user in (foreign, own)
        ),
        metadata=shop,
    )
    first, second = [response.outcome async for response in stream]
    assert first.error.reason == "FORBIDDEN"
    assert second.ack.sequence == 1
    assert (await unstarted.users.get(UserKey("rival", "alice"))).version == 0
    assert unstarted.engine.requests == []
