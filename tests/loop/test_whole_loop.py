"""The loop over sockets, with everything real: one start, one crash of the trainer, one restart."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from papa_serving.client import Client, FeedbackEvent, InvalidRequest, ItemNotFound, RevisionNotFound, ServedBy
from papa_serving.stubs.serving.v1 import (
    feedback_pb2,
    feedback_pb2_grpc,
    generation_pb2,
    generation_pb2_grpc,
    types_pb2,
)

from tests.loop.service_process import Running, papa_up
from tests.papa.support import save_tiny_backbone
from tests.tracing.collector import Collector

# Quick updates that always pass the gate, so that the tests see the plumbing and not the taste of an untrained model.
QUICK = {"PAPA_TRAINER__MIN_LABELS": "4", "PAPA_TRAINER__MAX_WAIT": "0.5", "PAPA_TRAINER__LEASE": "3"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("loop")


@pytest.fixture(scope="module")
def backbone(folder: Path) -> Path:
    return save_tiny_backbone(folder / "backbone")


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    """Collects all traces of the service."""
    with Collector() as collector:
        yield collector


@pytest.fixture(scope="module")
def service(folder: Path, backbone: Path, collector: Collector) -> Iterator[Running]:
    """The trainer kills itself once, between training and commit."""
    fault = {"TRAINER_FAULT": "after_training", "TRAINER_FAULT_MARKER": str(folder / "killed")}
    traced = {"PAPA_TRACING__ENABLED": "true", "PAPA_TRACING__ENDPOINT": collector.endpoint}
    with papa_up(folder / "data", backbone, {**QUICK, **fault, **traced}) as running:
        yield running


@pytest.fixture
def client(service: Running) -> Iterator[Client]:
    with Client(service.grpc) as client:
        yield client


def test_feedback_becomes_a_revision_although_the_trainer_is_killed_before_the_commit(
    client: Client, folder: Path
) -> None:
    first = client.generate("ada", 8, seed=100, steps=5)
    assert [item.seed for item in first.items] == list(range(100, 108))
    assert first.served_by is ServedBy.BASE
    events = [
        FeedbackEvent("ada", 1.0 if i % 2 else -1.0, item_id=item.item_id, event_id=f"e{i}")
        for i, item in enumerate(first.items)
    ]
    assert [outcome.sequence for outcome in client.submit_feedback(events)] == list(range(1, 9))
    assert all(outcome.duplicate for outcome in client.submit_feedback(events))
    client.wait_for_revision("ada", settled=True, timeout=120)
    assert (folder / "killed").exists(), "the trainer must have died once for this test to mean anything"

    state = client.get_user("ada")
    assert (state.likes, state.dislikes, state.pending_events, state.dead_letters) == (4, 4, 0, 0)
    assert applied_events(folder) == [f"e{i}" for i in range(8)]
    second = client.generate("ada", 8, seed=100, steps=5)
    assert second.served_by is ServedBy.ADAPTER
    assert second.revision == state.current_revision.name  # type: ignore[union-attr]
    assert [item.image for item in second.items] != [item.image for item in first.items]
    base = client.generate("ada", 8, seed=100, steps=5, revision="base")
    assert [item.image for item in base.items] == [item.image for item in first.items]


def applied_events(folder: Path) -> list[str]:
    """Every event id of every revision's manifest, oldest first; each one's parent must be the one before."""
    manifests = sorted((folder / "data").rglob("manifest.json"), key=lambda path: path.parent.name)
    read = [json.loads(path.read_text()) for path in manifests]
    assert [manifest["parent"] for manifest in read] == ["", *(path.parent.name for path in manifests[:-1])]
    return [event for manifest in read for event in manifest["events"]]


def test_another_user_is_served_by_the_base(client: Client) -> None:
    assert client.generate("bob", 1, steps=3).served_by is ServedBy.BASE


def test_bad_input_gets_an_error_that_says_what_to_change(client: Client) -> None:
    item = client.generate("eve", 1, steps=3).items[0].item_id
    with pytest.raises(InvalidRequest, match="count"):
        client.generate("eve", 0)
    with pytest.raises(InvalidRequest, match="user"):
        client.generate("", 1)
    with pytest.raises(InvalidRequest, match="steps"):
        client.generate("eve", 1, steps=100_000)
    with pytest.raises(RevisionNotFound):
        client.generate("eve", 1, revision="000001-00000000")
    with pytest.raises(ItemNotFound):
        client.like("mallory", item)
    with pytest.raises(InvalidRequest, match="grade"):
        client.submit_feedback([FeedbackEvent("eve", 1.0, item_id=item), FeedbackEvent("eve", 2.0, item_id=item)])
    assert client.get_user("eve").likes == 0, "a refused batch must leave nothing behind"
    assert client.like("eve", item).accepted


def test_errors_are_rich_on_the_wire(service: Running) -> None:
    with grpc.insecure_channel(service.grpc) as channel:
        stub = generation_pb2_grpc.GenerationServiceStub(channel)
        with pytest.raises(grpc.RpcError) as error:
            stub.Generate(generation_pb2.GenerateRequest(user=types_pb2.User(user="x" * 999), count=100_000))
    status = rpc_status.from_call(error.value)  # type: ignore[arg-type]
    assert status is not None
    bad, info = error_details_pb2.BadRequest(), error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(bad) for detail in status.details)
    assert any(detail.Unpack(info) for detail in status.details)
    assert {violation.field for violation in bad.field_violations} == {"user.user", "count"}
    assert (info.domain, info.reason) == ("papa", "INVALID_REQUEST")


def test_a_bad_event_does_not_end_the_stream(service: Running, client: Client) -> None:
    item = client.generate("zoe", 1, steps=3).items[0].item_id
    user = types_pb2.User(user="zoe")
    like = feedback_pb2.SIGNAL_LIKE
    events = [
        feedback_pb2.FeedbackEvent(event_id="s1", user=user, item_id=item, signal=like),
        feedback_pb2.FeedbackEvent(event_id="s2", user=user, signal=like),
        feedback_pb2.FeedbackEvent(event_id="s3", user=user, item_id="never-made", signal=like),
        feedback_pb2.FeedbackEvent(event_id="s4", user=user, item_id=item, grade=-0.5),
    ]
    with grpc.insecure_channel(service.grpc) as channel:
        requests = iter([feedback_pb2.StreamFeedbackRequest(event=event) for event in events])
        responses = feedback_pb2_grpc.FeedbackServiceStub(channel).StreamFeedback(requests)
        outcomes = [response.outcome for response in responses]
    assert [outcome.event_id for outcome in outcomes] == ["s1", "s2", "s3", "s4"]
    reasons = [outcome.error.reason if outcome.HasField("error") else "" for outcome in outcomes]
    assert reasons == ["", "INVALID_REQUEST", "ITEM_NOT_FOUND", ""]


def test_one_like_can_be_followed_to_the_generation_that_learnt_from_it(
    client: Client, collector: Collector, folder: Path
) -> None:
    """Follows the call to its entry in the log, to the update that links to it, and to the first generation after."""
    items = client.generate("iris", 4, steps=3).items
    assert client.submit_feedback([FeedbackEvent("iris", 1.0, item_id=each.item_id) for each in items])
    revision = client.wait_for_revision("iris", settled=True, timeout=120).name
    answer = client.generate("iris", 1, steps=3)
    assert answer.revision == revision

    served = collector.wait(lambda span: span.name == "first served" and span.attributes["papa.revision"] == revision)
    update = collector.above(served)
    like = collector.wait(lambda span: span.identity in update.links)
    rpc = collector.above(like)
    assert (rpc.service, rpc.name) == ("papa-gateway", "papa.serving.v1.FeedbackService/SubmitFeedback")
    assert (like.service, like.name, like.attributes["papa.accepted"]) == ("papa-gateway", "append feedback", 4)
    assert (update.service, update.name, update.attributes["papa.events"]) == ("papa-trainer", "update", 4)
    generation = collector.wait(lambda span: span.identity in served.links)
    assert (generation.service, generation.name) == ("papa-generator", "generate")
    assert update.identity in generation.links
    below = {span.name: span.seconds for span in collector.spans if span.parent == generation.span_id}
    assert {"find adapter", "queued", "denoising", "store items"} <= set(below)
    assert collector.above(collector.above(generation)).name == "papa.serving.v1.GenerationService/Generate"
    said = str([(span.name, span.error, span.attributes) for span in collector.spans])
    assert not re.findall(r"\b(iris|ada|bob|eve|zoe)\b", said)
    (committed,) = [line for line in logged(folder) if line.get("revision") == revision]
    assert (committed["message"], committed["trace_id"]) == ("committed", update.trace_id)


def logged(folder: Path) -> Iterator[dict[str, object]]:
    """Our own lines of Ray's workers."""
    for path in (folder / "data" / "logs" / "ray").glob("worker-*.err"):
        for line in path.read_text().splitlines():
            if line.startswith('{"time"'):
                yield json.loads(line)


def test_every_process_is_in_the_metrics(service: Running) -> None:
    with urllib.request.urlopen(service.metrics, timeout=10) as response:
        text = response.read().decode()
    for name in ("papa_rpc_handled_total", "papa_engine_step_rows_count", "papa_updates_total"):
        assert any(line.startswith(name) and not line.endswith(" 0.0") for line in text.splitlines()), name


def test_a_restart_of_everything_finds_every_adapter(
    service: Running, client: Client, folder: Path, backbone: Path, collector: Collector
) -> None:
    """Last: it ends the service of the tests above."""
    client.wait_for_revision("ada", settled=True)
    before = client.generate("ada", 4, seed=7, steps=5)
    last = client.generate("ada", 1, steps=3).generation_id
    state = client.get_user("ada")
    assert service.stop() == 0
    # A worker and the gateway send what they recorded last before they end.
    spans = [each for each in collector.spans if each.attributes.get("papa.generation_id") == last]
    (generation,) = [each for each in spans if each.service == "papa-generator"]
    assert generation.parent in {each.span_id for each in collector.spans if each.service == "papa-gateway"}
    with papa_up(folder / "data", backbone, QUICK) as again, Client(again.grpc) as returned:
        assert returned.get_user("ada") == state
        after = returned.generate("ada", 4, seed=7, steps=5)
        assert after.revision == before.revision
        assert [item.image for item in after.items] == [item.image for item in before.items]
