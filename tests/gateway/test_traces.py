"""The gateway in traces: a span for each RPC, below the caller's, and the caller's own context from our client."""

from __future__ import annotations

import json
import logging

import grpc
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from papa_serving import tracing
from papa_serving.client import AsyncClient, Client, FeedbackEvent
from papa_serving.contracts.trace import ids
from papa_serving.logs import JsonFormatter
from papa_serving.metrics import RPC_IN_FLIGHT
from papa_serving.stubs.serving.v1 import feedback_pb2, generation_pb2, types_pb2, user_pb2

from tests.gateway.support.service import Service, eventually
from tests.tracing.collector import Collector

CALLER = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
ALICE = types_pb2.User(user="alice-secret")


async def all_ended() -> None:
    """Until the spans of all calls are recorded. The span of a call ends after its answer has been sent."""
    await eventually(lambda: not any(sample.value for gauge in RPC_IN_FLIGHT.collect() for sample in gauge.samples))
    tracing.end(5.0)


def like(number: int) -> feedback_pb2.FeedbackEvent:
    return feedback_pb2.FeedbackEvent(
        event_id=f"event-secret-{number}", user=ALICE, item_id=f"i{number}", signal=feedback_pb2.SIGNAL_LIKE
    )


async def test_a_like_carries_its_context_into_the_log(service: Service, recording: Collector) -> None:
    request = feedback_pb2.SubmitFeedbackRequest(events=[like(0), like(1)])
    await service.feedback.SubmitFeedback(request, metadata=(("traceparent", CALLER),))
    await all_ended()
    rpc, append = recording.named("papa.serving.v1.FeedbackService/SubmitFeedback"), recording.named("append feedback")
    assert (rpc.trace_id, rpc.parent, rpc.kind) == ("a" * 32, "b" * 16, 2)
    assert rpc.attributes["rpc.grpc.status_code"] == 0
    assert (append.parent, append.attributes) == (rpc.span_id, {"papa.events": 2, "papa.accepted": 2})
    assert {ids(event.traceparent) for event in service.log.accepted} == {append.identity}


async def test_groups_of_a_stream_are_traces_of_their_own(service: Service, recording: Collector) -> None:
    requests = [feedback_pb2.StreamFeedbackRequest(event=like(number)) for number in range(3)]
    outcomes = [each async for each in service.feedback.StreamFeedback(iter(requests))]
    assert len(outcomes) == 3
    await all_ended()
    stream = recording.named("papa.serving.v1.FeedbackService/StreamFeedback")
    groups = [span for span in recording.spans if span.name == "append feedback"]
    assert sum(group.attributes["papa.accepted"] for group in groups) == 3
    assert all(group.trace_id != stream.trace_id and group.links == (stream.identity,) for group in groups)


async def test_the_engine_is_called_below_the_call(service: Service, recording: Collector) -> None:
    await service.generation.Generate(generation_pb2.GenerateRequest(user=ALICE, count=1))
    await all_ended()
    rpc = recording.named("papa.serving.v1.GenerationService/Generate")
    run = recording.named("papa.engine.v1.EngineService/Run")
    assert (run.parent, run.kind, rpc.parent) == (rpc.span_id, 3, "")
    assert service.engine.requests[-1].traceparent[3:52] == "-".join(run.identity)


async def test_errors_are_the_servers_or_the_callers(service: Service, recording: Collector) -> None:
    with pytest.raises(grpc.aio.AioRpcError):
        await service.generation.Generate(generation_pb2.GenerateRequest(user=ALICE, count=0))
    await service.engine.die()
    with pytest.raises(grpc.aio.AioRpcError):
        await service.generation.Generate(generation_pb2.GenerateRequest(user=ALICE, count=1))
    await all_ended()
    of_rpc = [span for span in recording.spans if span.name.startswith("papa.serving")]
    codes = {span.attributes["rpc.grpc.status_code"]: span.error for span in of_rpc}
    assert codes == {3: "", 14: "UNAVAILABLE"}


async def test_no_span_names_a_user_or_an_event(service: Service, recording: Collector) -> None:
    await service.feedback.SubmitFeedback(feedback_pb2.SubmitFeedbackRequest(events=[like(0)]))
    await service.user.GetUser(user_pb2.GetUserRequest(user=ALICE))
    await service.generation.Generate(generation_pb2.GenerateRequest(user=ALICE, count=1))
    await all_ended()
    assert len(recording.spans) >= 5
    assert "secret" not in str(recording.spans)


async def test_log_lines_name_the_trace(recording: Collector) -> None:
    with tracing.span("call") as span:
        line = json.loads(JsonFormatter().format(logging.makeLogRecord({"msg": "hello"})))
    assert f"00-{line['trace_id']}-{line['span_id']}" == span.traceparent[:-3]
    assert "trace_id" not in json.loads(JsonFormatter().format(logging.makeLogRecord({"msg": "hello"})))


async def test_our_client_hands_on_the_callers_span(service: Service, recording: Collector) -> None:
    """A caller that keeps traces of its own, in this process with a provider of its own."""
    theirs = TracerProvider(shutdown_on_exit=False).get_tracer("backend")
    async with AsyncClient(service.gateway.address) as client:
        with theirs.start_as_current_span("their request") as span:
            await client.get_user("alice")
            events = [FeedbackEvent("alice", 1.0, item_id="i0")]
            assert [each.accepted async for each in client.stream_feedback(events)] == [True]
        await client.get_user("alice")
    await all_ended()
    context = span.get_span_context()
    parents = [(each.trace_id, each.parent) for each in recording.spans if each.name.startswith("papa.serving")]
    assert parents[:2] == [(f"{context.trace_id:032x}", f"{context.span_id:016x}")] * 2
    assert parents[2][1] == ""


def test_a_client_without_opentelemetry_sends_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    with Client("127.0.0.1:1") as client, trace.use_span(TracerProvider().get_tracer("x").start_span("y")):
        assert dict(client._connection.metadata("id"))["traceparent"].startswith("00-")
        monkeypatch.delitem(__import__("sys").modules, "opentelemetry.trace")
        assert client._connection.metadata("id") == (("x-request-id", "id"),)
