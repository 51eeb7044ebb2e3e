"""Typed events, origins and notes over a running gateway."""

from __future__ import annotations

import json

import grpc
import pytest
from papa_serving.client import AsyncClient, FeedbackEvent, InvalidRequest
from papa_serving.contracts.attribution import EVENT_WEIGHTS
from papa_serving.settings import AttributionSettings, Settings
from papa_serving.stubs.serving.v1 import feedback_pb2, generation_pb2, info_pb2, info_pb2_grpc, types_pb2, user_pb2
from prometheus_client import REGISTRY

from tests.gateway.support.service import Service, refusal

ALICE = types_pb2.User(user="alice")
Event, Submit = feedback_pb2.FeedbackEvent, feedback_pb2.SubmitFeedbackRequest


def event(number: int, kind: str = "", **fields: object) -> Event:
    return Event(**{"event_id": f"e{number}", "user": ALICE, "item_id": f"i{number}", "type": kind, **fields})


async def activity(service: Service, user: types_pb2.User = ALICE) -> list[dict[str, object]]:
    data = b""
    async for part in service.user.ExportUser(user_pb2.ExportUserRequest(user=user)):
        if part.chunk.name == "activity.jsonl":
            data += part.chunk.data
    return [json.loads(line) for line in data.splitlines()]


async def test_a_type_is_worth_what_the_deployment_says_to_each_tenant() -> None:
    weights = AttributionSettings(weights={"click": 0.5}, tenant_weights={"shop": {"view": 0.25, "click": 0.0}})
    service = Service(weights)
    await service.start()
    try:
        shop = types_pb2.User(tenant="shop", user="bob")
        kinds = ["view", "click", "purchase", "skip", "dislike"]
        events = [event(n, kind) for n, kind in enumerate(kinds)]
        events += [event(n, kind, user=shop) for n, kind in enumerate(kinds)]
        response = await service.feedback.SubmitFeedback(Submit(events=events))
        assert all(each.HasField("ack") for each in response.outcomes)
        grades = [round(each.grade, 6) for each in service.log.accepted]
        assert grades == [0.0, 0.5, 1.0, -0.2, -1.0, 0.25, 0.0, 1.0, -0.2, -1.0]
        info = await info_pb2_grpc.InfoServiceStub(service.channel).GetServerInfo(info_pb2.GetServerInfoRequest())
        assert dict(info.event_weights) == {**EVENT_WEIGHTS, "click": 0.5}
    finally:
        await service.stop()


async def test_an_unknown_type_is_refused_with_those_there_are(service: Service) -> None:
    refused = await refusal(service.feedback.SubmitFeedback(Submit(events=[event(0, "click"), event(1, "share")])))
    assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert refused.violations == {
        "events[1].type": "must be one of view, click, cart, purchase, like, dislike, skip",
    }
    assert service.log.accepted == []


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        (event(0, "click", grade=0.5), "events[0].grade"),
        (event(0, "like", signal=feedback_pb2.SIGNAL_LIKE), "events[0].signal"),
        (Event(event_id="e0", user=ALICE, cancels="e", type="click"), "events[0].type"),
        (event(0, "click", generation_id="g" * 129), "events[0].generation_id"),
        (event(0, "click", recommendation_id="a\nb"), "events[0].recommendation_id"),
        (event(0, "click", metadata={f"k{n}": "" for n in range(17)}), "events[0].metadata"),
        (event(0, "click", metadata={"": "v"}), "events[0].metadata"),
        (event(0, "click", metadata={"k": "v" * 257}), "events[0].metadata"),
        (event(0, "click", tags=["t"] * 17), "events[0].tags"),
        (event(0, "click", tags=["t" * 65]), "events[0].tags"),
        (event(0), "events[0].label"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_contradictions_and_oversize_notes_are_refused_by_field(service: Service, bad: Event, field: str) -> None:
    refused = await refusal(service.feedback.SubmitFeedback(Submit(events=[bad])))
    assert list(refused.violations) == [field]


async def test_types_origins_and_notes_come_back_in_the_export(service: Service) -> None:
    before = REGISTRY.get_sample_value("papa_typed_events_total", {"type": "view"}) or 0.0
    events = [
        event(0, "view", generation_id="g7", metadata={"page": "home"}, tags=["spring"]),
        event(1, "purchase", recommendation_id="r3"),
        event(2, grade=0.5, generation_id="g7"),
        event(3, grade=-0.5),
    ]
    for _ in range(2):
        await service.feedback.SubmitFeedback(Submit(events=events))
    found = await activity(service)
    assert [(each["kind"], each["event_id"], each.get("type")) for each in found] == [
        ("event", "e0", "view"),
        ("event", "e1", "purchase"),
        ("event", "e2", None),
    ]
    assert (found[0]["generation_id"], found[0]["metadata"], found[0]["tags"]) == ("g7", {"page": "home"}, ["spring"])
    assert (found[1]["recommendation_id"], found[1]["item_id"], found[2]["grade"]) == ("r3", "i1", 0.5)
    assert REGISTRY.get_sample_value("papa_typed_events_total", {"type": "view"}) == before + 1, "a retry counts once"


async def test_a_view_needs_neither_item_nor_picture(service: Service) -> None:
    service.log.missing = {"gone"}
    views = [
        event(0, "view", item_id="gone"),
        Event(event_id="e1", user=ALICE, type="view", catalogue_item=feedback_pb2.NamedCatalogueItem(item_id="x")),
    ]
    response = await service.feedback.SubmitFeedback(Submit(events=views))
    assert [each.ack.sequence for each in response.outcomes] == [1, 2]
    refused = await refusal(service.feedback.SubmitFeedback(Submit(events=[event(2, grade=0.5, item_id="gone")])))
    assert refused.reason == "ITEM_NOT_FOUND"


async def test_a_purchase_of_an_item_that_is_gone_is_kept_and_said_to_teach_nothing(service: Service) -> None:
    service.log.missing = {"gone"}
    catalogue_item = feedback_pb2.NamedCatalogueItem(item_id="x")
    late = [
        event(0, "purchase", item_id="gone", generation_id="g7"),
        Event(event_id="e1", user=ALICE, type="purchase", catalogue_item=catalogue_item),
        event(2, "purchase"),
    ]
    liked = REGISTRY.get_sample_value("papa_feedback_labels_total", {"label": "like", "cohort": "1-10"}) or 0.0
    for again in (False, True):
        outcomes = (await service.feedback.SubmitFeedback(Submit(events=late))).outcomes
        assert [(each.ack.item_gone, each.ack.duplicate) for each in outcomes] == [(True, again)] * 2 + [(False, again)]
    found = await activity(service)
    assert [(each["event_id"], each["type"], each.get("generation_id")) for each in found] == [
        ("e0", "purchase", "g7"),
        ("e1", "purchase", None),
        ("e2", "purchase", None),
    ]
    now = REGISTRY.get_sample_value("papa_feedback_labels_total", {"label": "like", "cohort": "1-10"})
    assert now == liked + 1, "what has no item is no label"
    async with AsyncClient(service.gateway.address) as client:
        (outcome,) = await client.submit_feedback(
            [FeedbackEvent("alice", item_id="gone", type="cart", generation_id="g")]
        )
        assert outcome.accepted and outcome.item_gone


async def test_the_export_has_one_line_for_a_record_and_the_weights_as_they_were_given(service: Service) -> None:
    metadata = {"k": "a\u2028b\x85c\u2029d é"}
    await service.feedback.SubmitFeedback(Submit(events=[event(0, "click", metadata=metadata)]))
    data = b""
    async for part in service.user.ExportUser(user_pb2.ExportUserRequest(user=ALICE)):
        data += part.chunk.data if part.chunk.name == "activity.jsonl" else b""
    (line,) = data.decode().splitlines()
    assert json.loads(line)["metadata"] == metadata
    assert '"grade":0.2,' in line and "é" in line


async def test_notes_are_bounded_in_bytes_of_json_too(service: Service) -> None:
    info = await info_pb2_grpc.InfoServiceStub(service.channel).GetServerInfo(info_pb2.GetServerInfoRequest())
    most = info.limits.max_notes_bytes
    fits = {f"k{n}": "v" * 245 for n in range(7)}
    size = len(json.dumps({"metadata": fits}, separators=(",", ":")))
    fits["rest"] = "v" * (most - size - len(',"rest":""'))
    await service.feedback.SubmitFeedback(Submit(events=[event(0, "view", metadata=fits)]))
    for over in ({**fits, "rest": fits["rest"] + "v"}, {f"k{n}": "\x01" * 256 for n in range(3)}):
        refused = await refusal(service.feedback.SubmitFeedback(Submit(events=[event(1, "view", metadata=over)])))
        assert str(most) in refused.violations["events[0].metadata"]
        request = generation_pb2.GenerateRequest(user=ALICE, count=1, metadata=over)
        assert list((await refusal(service.generation.Generate(request))).violations) == ["metadata"]


async def test_the_notes_of_a_generation_come_back_with_its_items(service: Service) -> None:
    request = generation_pb2.GenerateRequest(user=ALICE, count=2, metadata={"page": "home"}, tags=["spring"])
    await service.generation.Generate(request)
    assert json.loads(service.engine.requests[-1].notes) == {"metadata": {"page": "home"}, "tags": ["spring"]}
    request.metadata["k" * 65] = ""
    assert list((await refusal(service.generation.Generate(request))).violations) == ["metadata"]


async def test_the_client_sends_types_and_refuses_a_grade_beside(service: Service) -> None:
    async with AsyncClient(service.gateway.address) as client:
        events = [FeedbackEvent("alice", item_id="i", type="cart", generation_id="g", metadata={"a": "b"}, tags=["t"])]
        (outcome,) = await client.submit_feedback(events)
        assert outcome.accepted
        assert (await client.server_info()).event_weights == EVENT_WEIGHTS
        for wrong, field in (
            (FeedbackEvent("alice", 0.5, item_id="i", type="cart"), "grade"),
            (FeedbackEvent("alice", 0.5, item_id="i", generation_id="g", recommendation_id="r"), "recommendation_id"),
            (FeedbackEvent("alice", 0.5, item_id="i", metadata={"a": 1}), "metadata"),  # type: ignore[dict-item]
        ):
            with pytest.raises(InvalidRequest) as refused:
                await client.submit_feedback([wrong])
            assert [each.field for each in refused.value.violations] == [f"events[0].{field}"]
    (sent,) = service.log.accepted
    assert (sent.attribution.type, sent.attribution.generation_id, sent.grade) == ("cart", "g", 0.5)
    assert (sent.attribution.notes.metadata, sent.attribution.notes.tags) == ({"a": "b"}, ("t",))


@pytest.mark.parametrize("weights", [{"share": 0.1}, {"click": 2.0}, {"click": float("nan")}, {"click": 1e-5}])
def test_settings_refuse_unknown_types_and_odd_weights(weights: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"share|click"):
        Settings(attribution={"weights": weights})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"share|click"):
        Settings(attribution={"tenant_weights": {"shop": weights}})  # type: ignore[arg-type]
