"""Generate and StreamGenerate: what reaches the engine, what comes back, what happens when the engine fails."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from papa_serving.contracts.items import BackboneInfo
from papa_serving.contracts.vocabulary import Vocabulary
from papa_serving.gateway.api.generation import MANY_AT_ONCE, ONE_OF_MANY
from papa_serving.stubs.serving.v1 import feedback_pb2, generation_pb2, types_pb2
from prometheus_client import REGISTRY

from tests.gateway.support.fake_engine import NOISE_VERSION, by_user, done, error, fail, items, wait
from tests.gateway.support.service import Service, eventually, refusal
from tests.ports import free_port

ALICE = types_pb2.User(user="alice")
Image = generation_pb2.ImageOptions
GetItem = generation_pb2.GetItemRequest
Request, StreamRequest = generation_pb2.GenerateRequest, generation_pb2.StreamGenerateRequest


async def test_every_field_reaches_the_engine(service: Service) -> None:
    service.items.info = BackboneInfo("b", "text", (3, 64, 64), takes_prompt=True)
    request = Request(
        user=types_pb2.User(tenant="shop", user="alice"),
        count=3,
        prompt="a red shoe",
        seed=2**63 - 1,
        sampler=generation_pb2.SAMPLER_DPMPP_2M,
        steps=7,
        revision="000004-bb",
        exploration=0.5,
        min_like_probability=0.75,
        overdraw=1.5,
        image=generation_pb2.ImageOptions(format=generation_pb2.IMAGE_FORMAT_WEBP, max_edge=64, quality=70),
    )
    trace = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    metadata = (("x-request-id", "my-id"), ("traceparent", trace))
    response = await service.generation.Generate(request, timeout=300, metadata=metadata)
    sent = service.engine.requests[0]
    assert (sent.tenant, sent.user, sent.count, sent.prompt) == ("shop", "alice", 3, "a red shoe")
    assert (sent.seed, sent.sampler, sent.steps) == (2**63 - 1, "dpmpp_2m", 7)
    assert (sent.revision, sent.exploration, sent.traceparent) == ("000004-bb", 0.5, trace)
    assert (sent.min_like_probability, sent.overdraw) == (0.75, 1.5)
    assert (sent.image.format, sent.image.max_edge, sent.image.quality) == ("webp", 64, 70)
    assert (sent.request_id, sent.generation_id) == ("my-id", response.generation_id)
    assert 200 < sent.seconds_left <= 300
    assert 200 < (service.engine.timeouts[0] or 0) <= 300
    assert service.engine.metadata[0]["application"] == "generator"


async def test_absent_fields_leave_the_choice_to_the_engine(service: Service) -> None:
    await service.generation.Generate(Request(user=ALICE, count=1))
    sent = service.engine.requests[0]
    assert (sent.tenant, sent.sampler, sent.steps, sent.revision, sent.exploration) == ("default", "", 0, "", -1.0)
    assert (sent.seconds_left, sent.prompt, sent.traceparent) == (0.0, "", "")
    assert (sent.min_like_probability, sent.overdraw) == (0.0, 0.0)
    assert (sent.image.format, sent.image.max_edge, sent.image.quality) == ("png", 0, 0)


async def test_an_absent_seed_is_random_and_an_explicit_zero_is_not(service: Service) -> None:
    for request in (Request(user=ALICE, count=64), Request(user=ALICE, count=64), Request(user=ALICE, count=1, seed=0)):
        await service.generation.Generate(request)
    first, second, zero = (sent.seed for sent in service.engine.requests)
    assert first != second
    assert max(first, second) + 63 < 2**53, "a browser and a JSON parser hold it"
    assert zero == 0


async def test_items_come_sorted_with_their_origin(service: Service) -> None:
    service.engine.scripts = [[items(2), items(0, 1, adapter=False), done()]]
    response = await service.generation.Generate(Request(user=ALICE, count=3, seed=10))
    assert [item.index for item in response.items] == [0, 1, 2]
    assert [item.seed for item in response.items] == [10, 11, 12]
    base, adapter = generation_pb2.SERVED_BY_BASE, generation_pb2.SERVED_BY_ADAPTER
    assert [item.served_by for item in response.items] == [base, base, adapter]
    assert response.items[2].image == b"\x02" * 16
    assert response.items[2].content_type == "image/png"
    assert (response.revision, response.served_by) == ("000001-aa", adapter)
    timings = response.timings
    assert (timings.queued_seconds, timings.denoising_seconds, timings.adapter_load_seconds) == (0.25, 0.5, 0.125)
    assert timings.total_seconds > 0
    assert response.noise_version == NOISE_VERSION


async def test_what_is_known_of_an_items_chances_is_passed_on(service: Service) -> None:
    service.engine.scripts = [[items(0, like=0.0), items(1, like=0.75), items(2), done()]] * 2
    response = await service.generation.Generate(Request(user=ALICE, count=3))
    assert [item.HasField("like_probability") for item in response.items] == [True, True, False]
    assert [item.like_probability for item in response.items[:2]] == [0.0, 0.75]
    stream = service.generation.StreamGenerate(StreamRequest(user=ALICE, count=3))
    streamed = [message.item.like_probability async for message in stream if message.item.HasField("like_probability")]
    assert streamed == [0.0, 0.75]


async def test_a_user_without_adapter_is_served_by_the_base(service: Service) -> None:
    service.engine.scripts = [[items(0, revision="", adapter=False), done(revision="")]]
    response = await service.generation.Generate(Request(user=ALICE, count=1))
    assert (response.revision, response.served_by) == ("", generation_pb2.SERVED_BY_BASE)


async def test_a_stream_sends_each_item_at_once_and_the_timings_last(service: Service) -> None:
    gate = asyncio.Event()
    service.engine.scripts = [[items(1), wait(gate), items(0), items(2), done()]]
    call = aiter(service.generation.StreamGenerate(StreamRequest(user=ALICE, count=3, seed=5)))
    first = await anext(call)
    assert (first.item.index, first.item.seed, first.revision) == (1, 6, "000001-aa"), "sent while the others run"
    gate.set()
    rest = [message async for message in call]
    assert [message.item.index for message in rest if message.HasField("item")] == [0, 2]
    assert not rest[-1].HasField("item")
    assert rest[-1].timings.denoising_seconds == 0.5
    assert rest[-1].noise_version == NOISE_VERSION
    assert {message.generation_id for message in rest} == {first.generation_id}


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("QUEUE_FULL", grpc.StatusCode.RESOURCE_EXHAUSTED),
        ("REVISION_NOT_FOUND", grpc.StatusCode.NOT_FOUND),
        ("REVISION_DAMAGED", grpc.StatusCode.FAILED_PRECONDITION),
        ("USER_DELETED", grpc.StatusCode.FAILED_PRECONDITION),
        ("DEADLINE_EXCEEDED", grpc.StatusCode.DEADLINE_EXCEEDED),
        ("GENERATOR_UNAVAILABLE", grpc.StatusCode.UNAVAILABLE),
    ],
)
async def test_errors_of_the_engine_keep_their_type(service: Service, reason: str, code: grpc.StatusCode) -> None:
    service.engine.scripts = [[error(reason, "said the engine", retry_after=2.5, queue="gpu")]]
    refused = await refusal(service.generation.Generate(Request(user=ALICE, count=1)))
    assert (refused.code, refused.reason, refused.domain) == (code, reason, "papa")
    assert (refused.message, refused.retry_after, refused.metadata["queue"]) == ("said the engine", 2.5, "gpu")
    assert len(service.engine.requests) == 1, "an answer of the engine is not asked for again"


async def test_a_request_that_only_the_engine_can_refuse_names_its_field(service: Service) -> None:
    service.engine.scripts = [[error("INVALID_REQUEST", "too many steps for ddpm", field="steps")]]
    refused = await refusal(service.generation.Generate(Request(user=ALICE, count=1)))
    assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.violations == {"steps": "too many steps for ddpm"}


async def test_an_internal_error_of_the_engine_tells_nothing(service: Service) -> None:
    service.engine.scripts = [[error("INTERNAL", "KeyError in /srv/secret.py")]]
    refused = await refusal(service.generation.Generate(Request(user=ALICE, count=1)))
    assert refused.code is grpc.StatusCode.INTERNAL
    assert "secret" not in refused.message


@pytest.mark.parametrize("code", ["UNIMPLEMENTED", "INTERNAL", "NOT_FOUND", "UNKNOWN", "CANCELLED"])
async def test_a_proxy_without_its_application_is_unavailable(service: Service, code: str) -> None:
    service.engine.scripts = [[fail(grpc.StatusCode[code])]]
    refused = await refusal(service.generation.Generate(Request(user=ALICE, count=1)))
    assert (refused.code, refused.reason) == (grpc.StatusCode.UNAVAILABLE, "GENERATOR_UNAVAILABLE")
    assert refused.retry_after is not None
    assert "secret" not in refused.message
    assert len(service.engine.requests) == 1


async def test_backpressure_of_the_proxy_is_a_full_queue(service: Service) -> None:
    service.engine.scripts = [[fail(grpc.StatusCode.RESOURCE_EXHAUSTED)]]
    refused = await refusal(service.generation.Generate(Request(user=ALICE, count=1)))
    assert (refused.code, refused.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL")
    assert refused.retry_after is not None


async def test_one_retry_while_nothing_has_arrived(service: Service) -> None:
    service.engine.scripts = [[fail(grpc.StatusCode.UNAVAILABLE)], [items(0), done()]]
    response = await service.generation.Generate(Request(user=ALICE, count=1, seed=3))
    assert len(response.items) == 1
    assert service.engine.requests[0] == service.engine.requests[1], "the same generation, not another one"


async def test_news_of_draws_alone_costs_no_retry(service: Service) -> None:
    """A caller is charged by a group without items, and hears nothing of it."""
    service.engine.scripts = [[items(0, -1, drawn=2), fail(grpc.StatusCode.UNAVAILABLE)], [items(0), done(drawn=1)]]
    streamed = [each async for each in service.generation.StreamGenerate(StreamRequest(user=ALICE, count=1))]
    assert [each.HasField("item") for each in streamed] == [True, False]
    assert len(service.engine.requests) == 2


async def test_no_second_retry(service: Service) -> None:
    service.engine.scripts = [[fail(grpc.StatusCode.UNAVAILABLE)]]
    refused = await refusal(service.generation.Generate(Request(user=ALICE, count=1)))
    assert refused.reason == "GENERATOR_UNAVAILABLE"
    assert len(service.engine.requests) == 2


async def test_no_retry_once_an_item_has_arrived(service: Service) -> None:
    service.engine.scripts = [[items(0), fail(grpc.StatusCode.UNAVAILABLE)], [items(0, 1), done()]]
    call = aiter(service.generation.StreamGenerate(StreamRequest(user=ALICE, count=2)))
    assert (await anext(call)).item.index == 0
    assert (await refusal(call)).reason == "GENERATOR_UNAVAILABLE"
    assert len(service.engine.requests) == 1


async def test_an_engine_that_just_ends_is_unavailable(service: Service) -> None:
    service.engine.scripts = [[items(0)]]
    refused = await refusal(service.generation.Generate(Request(user=ALICE, count=2)))
    assert refused.reason == "GENERATOR_UNAVAILABLE"


async def test_an_engine_that_dies_under_a_generation(service: Service) -> None:
    service.engine.scripts = [[items(0), wait(asyncio.Event())]]
    call = aiter(service.generation.StreamGenerate(StreamRequest(user=ALICE, count=2)))
    assert (await anext(call)).item.index == 0
    await service.engine.die()
    assert (await refusal(call)).reason == "GENERATOR_UNAVAILABLE"


async def test_a_generator_that_comes_back_is_found_again(unstarted: Service) -> None:
    port = free_port()
    await unstarted.start(engine_up=False, generator=f"127.0.0.1:{port}")
    refused = await refusal(unstarted.generation.Generate(Request(user=ALICE, count=1)))
    assert refused.reason == "GENERATOR_UNAVAILABLE"
    await unstarted.engine.start(port)
    await unstarted.until_serving("papa.serving.v1.GenerationService")
    assert len((await unstarted.generation.Generate(Request(user=ALICE, count=1))).items) == 1


async def test_a_deadline_reaches_the_caller_and_the_engine(service: Service) -> None:
    service.engine.scripts = [[wait(asyncio.Event())]]
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await service.generation.Generate(Request(user=ALICE, count=1), timeout=0.3)
    assert failure.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await asyncio.wait_for(service.engine.cancelled.wait(), 60)


@pytest.mark.parametrize("method", ["Generate", "StreamGenerate"])
async def test_a_caller_that_hangs_up_stops_the_engine(service: Service, method: str) -> None:
    service.engine.scripts = [[items(0), wait(asyncio.Event())]]
    kind = Request if method == "Generate" else StreamRequest
    call = getattr(service.generation, method)(kind(user=ALICE, count=2))
    if method == "StreamGenerate":
        await call.read()
    await asyncio.wait_for(service.engine.running.wait(), 60)
    call.cancel()
    await asyncio.wait_for(service.engine.cancelled.wait(), 60)


async def test_what_was_selected_is_said_with_the_items(service: Service) -> None:
    """Items may be missing, for a floor, and a generator of a former release says nothing of its draws."""
    service.engine.scripts = [
        [items(0, drawn=4), items(2, adapter=False, exploring=True, drawn=5), done(drawn=5, accepted=2)]
    ]
    response = await service.generation.Generate(Request(user=ALICE, count=3, min_like_probability=0.5))
    assert [(item.index, item.exploring) for item in response.items] == [(0, False), (2, True)]
    assert (response.acceptance, response.drawn) == (0.4, 5)
    streamed = [each async for each in service.generation.StreamGenerate(StreamRequest(user=ALICE, count=3))]
    assert [each.item.exploring for each in streamed if each.HasField("item")] == [False, True]
    assert (streamed[-1].acceptance, streamed[-1].drawn) == (0.4, 5)
    service.engine.scripts = [[items(0), done()]]
    former = await service.generation.Generate(Request(user=ALICE, count=1))
    assert (former.acceptance, former.drawn) == (1.0, 0)


async def test_an_answer_too_large_for_one_message_says_so(unstarted: Service) -> None:
    await unstarted.start(max_message_bytes=20_000)
    unstarted.engine.scripts = [[items(0, 3, size=6_000), done()]]
    refused = await refusal(unstarted.generation.Generate(Request(user=ALICE, count=4)))
    assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
    assert "StreamGenerate" in refused.violations["count"]
    call = unstarted.generation.StreamGenerate(StreamRequest(user=ALICE, count=4))
    assert len([message async for message in call if message.HasField("item")]) == 4


async def test_one_item_that_no_message_holds_is_refused_in_words(unstarted: Service) -> None:
    await unstarted.start(max_message_bytes=20_000)
    unstarted.engine.scripts = [[items(0, size=20_000), done()]]
    refused = await refusal(unstarted.generation.StreamGenerate(StreamRequest(user=ALICE, count=1)))
    assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
    assert "max_edge" in refused.violations["image"]


async def test_a_prompt_for_a_backbone_without_one(service: Service) -> None:
    refused = await refusal(service.generation.Generate(Request(user=ALICE, count=1, prompt="a shoe")))
    assert "prompt" in refused.violations
    assert service.engine.requests == []


BAD = [
    (Request(count=1), {"user.user"}),
    (Request(user=types_pb2.User(user="x" * 129), count=1), {"user.user"}),
    (Request(user=types_pb2.User(user="a\nb"), count=1), {"user.user"}),
    (Request(user=types_pb2.User(user="a\x00b"), count=1), {"user.user"}),
    (Request(user=types_pb2.User(user="a", tenant="t" * 129), count=1), {"user.tenant"}),
    (Request(user=types_pb2.User(user="a", tenant="t\t"), count=1), {"user.tenant"}),
    (Request(user=ALICE), {"count"}),
    (Request(user=ALICE, count=65), {"count"}),
    (Request(user=ALICE, count=2**32 - 1), {"count"}),
    (Request(user=ALICE, count=1, prompt="p" * 1001), {"prompt"}),
    (Request(user=ALICE, count=1, seed=2**63), {"seed"}),
    (Request(user=ALICE, count=1, sampler=9), {"sampler"}),
    (Request(user=ALICE, count=1, steps=0), {"steps"}),
    (Request(user=ALICE, count=1, steps=1001), {"steps"}),
    (Request(user=ALICE, count=1, revision="r" * 129), {"revision"}),
    (Request(user=ALICE, count=1, exploration=-0.1), {"exploration"}),
    (Request(user=ALICE, count=1, exploration=1.1), {"exploration"}),
    (Request(user=ALICE, count=1, exploration=float("nan")), {"exploration"}),
    (Request(user=ALICE, count=1, min_like_probability=-0.1), {"min_like_probability"}),
    (Request(user=ALICE, count=1, min_like_probability=1.1), {"min_like_probability"}),
    (Request(user=ALICE, count=1, min_like_probability=float("nan")), {"min_like_probability"}),
    (Request(user=ALICE, count=1, overdraw=0.0), {"overdraw"}),
    (Request(user=ALICE, count=1, overdraw=4.1), {"overdraw"}),
    (Request(user=ALICE, count=1, overdraw=float("nan")), {"overdraw"}),
    (Request(user=ALICE, count=1, image=Image(format=9)), {"image.format"}),
    (Request(user=ALICE, count=1, image=Image(max_edge=0)), {"image.max_edge"}),
    (Request(user=ALICE, count=1, image=Image(max_edge=4097)), {"image.max_edge"}),
    (Request(user=ALICE, count=1, image=Image(quality=50)), {"image.quality"}),
    (Request(user=ALICE, count=1, image=Image(format="IMAGE_FORMAT_JPEG", quality=0)), {"image.quality"}),
    (Request(user=ALICE, count=1, image=Image(format="IMAGE_FORMAT_WEBP", quality=101)), {"image.quality"}),
    (Request(count=0, seed=2**64 - 1, steps=0), {"user.user", "count", "seed", "steps"}),
]


async def test_a_prompt_is_read_by_the_words_that_the_backbone_knows(service: Service) -> None:
    vocabulary = Vocabulary(("boot", "bag"), {"wellington": "boot"})
    service.items.info = BackboneInfo("b", "text", (1, 28, 28), takes_prompt=True, vocabulary=vocabulary)
    asked = {"user": ALICE, "count": 1, "prompt": "red wellingtons", "negative_prompt": "bags, please"}
    response = await service.generation.Generate(Request(**asked))
    expected = generation_pb2.PromptReading(prompt="boot", read_as={"wellingtons": "boot"}, unknown_words=["red"])
    assert response.prompt_reading == expected
    streamed = [each async for each in service.generation.StreamGenerate(StreamRequest(**asked))]
    assert [each.prompt_reading for each in streamed if each.HasField("prompt_reading")] == [expected]
    assert streamed[-1].HasField("prompt_reading")
    assert [(sent.prompt, sent.negative_prompt) for sent in service.engine.requests] == [("boot", "bag")] * 2
    plain = await service.generation.Generate(Request(user=ALICE, count=1, prompt="a boot"))
    assert not plain.HasField("prompt_reading")


@pytest.mark.parametrize("fields", [{"prompt": "boot"}, {"guidance_scale": 3.0}])
async def test_what_means_nothing_without_prompts_is_refused_by_its_name(
    service: Service, fields: dict[str, object]
) -> None:
    refused = await refusal(service.generation.Generate(Request(user=ALICE, count=1, **fields)))  # type: ignore[arg-type]
    assert refused.violations == dict.fromkeys(fields, "the deployed backbone takes no prompt")
    assert service.engine.requests == []


def _named(value: object) -> str:
    """The same in every process: xdist compares the names."""
    return str(sorted(value) if isinstance(value, set) else value)[:40].replace("\n", " ")


@pytest.mark.parametrize(("request_", "fields"), BAD, ids=_named)
async def test_bad_requests_name_every_field_and_reach_nobody(
    service: Service, request_: Request, fields: set[str]
) -> None:
    service.items.info = BackboneInfo("b", "text", (3, 64, 64), takes_prompt=True)
    for call in (
        service.generation.Generate(request_),
        service.generation.StreamGenerate(StreamRequest.FromString(request_.SerializeToString())),
    ):
        refused = await refusal(call)
        assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
        assert set(refused.violations) == fields
        assert all(refused.violations.values())
    assert service.engine.requests == []


NAMES = (
    "می\u200cخواهم",  # Persian: ZWNJ
    "क\u094d\u200dष",  # Devanagari: ZWJ
    "👨\u200d👩\u200d👧",  # a family: ZWJ
    "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",  # England: tags
    "Jean\u00a0Luc",  # NBSP
    "山田\u3000太郎",  # ideographic space
    "Marie\u202fClaire",  # narrow NBSP
    "❤\ufe0f",  # variation selector
    "\U0001fae9",  # an emoji of Unicode 16, unknown to older Pythons
)
DECEPTIVE = (
    "a\u202eb",  # right-to-left override
    "a\u2066b\u2069",  # isolates
    "a\u200fb",  # right-to-left mark
    "a\u061cb",  # Arabic letter mark
    "a\x1b[31m",  # C0
    "a\x7f",
    "a\x9b31m",  # C1
    "a\nb",
    "a\u2028b",  # line separator
    "a\ufeffb",
    "a\ufdd0",  # a noncharacter
    "a\ue000",  # private use
)


async def test_any_printable_user_is_somebody(service: Service) -> None:
    for user in ("x" * 128, "../../etc/passwd", "Ünïcødé 名前", "a b"):
        await service.generation.Generate(Request(user=types_pb2.User(user=user), count=1))
    assert service.engine.requests[1].user == "../../etc/passwd"


@pytest.mark.parametrize("user", NAMES)
async def test_people_write_their_names_as_they_do(service: Service, user: str) -> None:
    await service.generation.Generate(Request(user=types_pb2.User(user=user, tenant=user), count=1))
    assert service.engine.requests[0].user == user


@pytest.mark.parametrize("user", DECEPTIVE)
async def test_no_id_deceives_a_reader(service: Service, user: str) -> None:
    for named in (types_pb2.User(user=user), types_pb2.User(user="alice", tenant=user)):
        refused = await refusal(service.generation.Generate(Request(user=named, count=1)))
        assert refused.reason == "INVALID_REQUEST"
    event = feedback_pb2.FeedbackEvent(
        event_id=user, user=types_pb2.User(user="alice"), item_id=user, signal=feedback_pb2.SIGNAL_LIKE
    )
    refused = await refusal(service.feedback.SubmitFeedback(feedback_pb2.SubmitFeedbackRequest(events=[event])))
    assert {"events[0].event_id", "events[0].item_id"} <= set(refused.violations)


async def test_an_item_comes_again_by_its_id(service: Service) -> None:
    request = GetItem(user=ALICE, item_id="g-3", image=Image(format="IMAGE_FORMAT_JPEG", max_edge=32, quality=60))
    response = await service.generation.GetItem(request, metadata=(("x-request-id", "mine"),))
    (sent,) = service.engine.rendered
    assert (sent.tenant, sent.user, sent.item_id, sent.request_id) == ("default", "alice", "g-3", "mine")
    assert (sent.image.format, sent.image.max_edge, sent.image.quality) == ("jpeg", 32, 60)
    item = response.item
    assert (item.item_id, item.image, item.content_type) == ("g-3", b"\x03" * 16, "image/jpeg")
    assert (item.seed, item.index, item.served_by) == (7, 3, generation_pb2.SERVED_BY_ADAPTER)
    assert not item.HasField("like_probability")
    assert (response.generation_id, response.revision, response.prompt) == ("g", "000001-aa", "a boot")


async def test_an_item_that_is_not_kept_is_not_found(service: Service) -> None:
    refused = await refusal(service.generation.GetItem(GetItem(user=ALICE, item_id="gone-1")))
    assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, "ITEM_NOT_FOUND")


async def test_a_lost_call_for_an_item_is_made_once_more(service: Service) -> None:
    service.engine.rendering = [grpc.StatusCode.UNAVAILABLE]
    assert (await service.generation.GetItem(GetItem(user=ALICE, item_id="g-0"))).item.item_id == "g-0"
    service.engine.rendering = [grpc.StatusCode.UNAVAILABLE] * 2
    assert (await refusal(service.generation.GetItem(GetItem(user=ALICE, item_id="g-0")))).reason == (
        "GENERATOR_UNAVAILABLE"
    )


async def test_an_item_too_large_for_one_message_says_what_to_ask_for(unstarted: Service) -> None:
    await unstarted.start(max_message_bytes=20_000)
    unstarted.engine.rendered_size = 20_000
    refused = await refusal(unstarted.generation.GetItem(GetItem(user=ALICE, item_id="g-0")))
    assert "max_edge" in refused.violations["image"]


async def test_a_bad_request_for_an_item_names_every_field(service: Service) -> None:
    refused = await refusal(service.generation.GetItem(GetItem(item_id="a\nb", image=Image(max_edge=0, quality=3))))
    assert set(refused.violations) == {"user.user", "item_id", "image.max_edge", "image.quality"}
    assert service.engine.rendered == []


async def many(service: Service, requests: list[Request]) -> dict[int, generation_pb2.GenerateManyResponse]:
    call = service.generation.GenerateMany(generation_pb2.GenerateManyRequest(requests=requests))
    answers = [answer async for answer in call]
    assert len({answer.index for answer in answers}) == len(answers), "one for each"
    return {answer.index: answer for answer in answers}


async def test_many_users_are_served_in_one_call(service: Service) -> None:
    users = [types_pb2.User(tenant="shop", user=f"u{n}") for n in range(20)]
    answers = await many(service, [Request(user=user, count=2, seed=n) for n, user in enumerate(users)])
    assert sorted(answers) == list(range(20))
    for index, answer in answers.items():
        assert [item.seed for item in answer.generation.items] == [index, index + 1]
        assert answer.generation.revision == "000001-aa"
    sent = {(request.tenant, request.user, request.seed) for request in service.engine.requests}
    assert sent == {("shop", f"u{n}", n) for n in range(20)}
    assert len({answer.generation.generation_id for answer in answers.values()}) == 20


async def test_one_of_many_that_fails_leaves_the_others_alone(unstarted: Service) -> None:
    await unstarted.start(rates={"user": 0.01, "user_burst": 3.0})
    bob, carl = types_pb2.User(user="bob"), types_pb2.User(user="carl")
    unstarted.engine.scripts = [[by_user({"carl": error("REVISION_DAMAGED", "said the engine")}), done()]]
    requests = [
        Request(user=ALICE, count=3), Request(user=bob, count=2), Request(user=carl, count=1),
        Request(count=0), Request(user=ALICE, count=1),
    ]  # fmt: skip
    answers = await many(unstarted, requests)
    assert {n: answer.error.reason for n, answer in answers.items()} == {
        0: "", 1: "", 2: "REVISION_DAMAGED", 3: "INVALID_REQUEST", 4: "RATE_LIMITED",
    }  # fmt: skip
    assert [answers[n].error.code for n in (2, 3, 4)] == [9, 3, 8]
    assert (answers[3].error.field, answers[2].error.message) == ("user.user", "said the engine")
    assert answers[4].error.retry_after_seconds > 0, "the first request of this user took the whole of the burst"
    assert len(answers[1].generation.items) == 2


async def test_one_of_many_that_its_message_does_not_hold_leaves_the_others_alone(unstarted: Service) -> None:
    """An answer that fits a GenerateResponse to the byte, and so not the message that wraps it."""
    limit, size = 40_000, 20_000
    await unstarted.start(max_message_bytes=limit)
    unstarted.engine.scripts = [[items(0, size=size), done()]]
    size += limit - (await unstarted.generation.Generate(Request(user=ALICE, count=1, seed=1))).ByteSize()
    unstarted.engine.scripts = [[by_user({"alice": items(0, size=size)}), done()]]
    assert (await unstarted.generation.Generate(Request(user=ALICE, count=1, seed=1))).ByteSize() == limit
    users = [ALICE, *(types_pb2.User(user=f"u{n}") for n in range(12)), ALICE]
    answers = await many(unstarted, [Request(user=user, count=1, seed=1) for user in users])
    refused = {index: answer.error for index, answer in answers.items() if answer.HasField("error")}
    assert {index: (each.reason, each.field) for index, each in refused.items()} == dict.fromkeys(
        (0, 13), ("INVALID_REQUEST", "count")
    )
    assert len(answers) == len(users)


async def test_each_of_many_is_counted_as_a_generation_of_its_own(service: Service) -> None:
    """So that the objectives, whose rules ask for `.*Generate`, see those that fail inside a call that ends well."""

    def handled(code: str) -> float:
        labels = {"method": ONE_OF_MANY, "code": code}
        return REGISTRY.get_sample_value("papa_rpc_handled_total", labels) or 0.0

    def timed() -> float:
        return REGISTRY.get_sample_value("papa_rpc_duration_seconds_count", {"method": ONE_OF_MANY}) or 0.0

    codes = ("OK", "UNAVAILABLE", "INVALID_ARGUMENT", "CANCELLED")
    before, timed_before = {code: handled(code) for code in codes}, timed()
    service.engine.scripts = [[by_user({"bob": error("GENERATOR_UNAVAILABLE", "gone")}), done()]]
    users = [ALICE, types_pb2.User(user="bob"), types_pb2.User(user="carl")]
    await many(service, [*(Request(user=user, count=1) for user in users), Request(count=0)])
    assert {code: handled(code) - before[code] for code in codes[:3]} == {
        "OK": 2, "UNAVAILABLE": 1, "INVALID_ARGUMENT": 1,
    }  # fmt: skip
    assert timed() == timed_before + 4
    service.engine.scripts = [[wait(asyncio.Event())]]
    last = Request(user=types_pb2.User(user="dora"), count=1)
    call = service.generation.GenerateMany(generation_pb2.GenerateManyRequest(requests=[last]))
    reading = asyncio.ensure_future(call.read())
    await eventually(lambda: service.engine.requests[-1].user == "dora")
    call.cancel()
    await eventually(lambda: handled("CANCELLED") == before["CANCELLED"] + 1)
    await asyncio.gather(reading, return_exceptions=True)


async def test_some_of_many_run_at_once_and_end_with_their_caller(service: Service) -> None:
    service.engine.scripts = [[wait(asyncio.Event())]]
    requests = [Request(user=types_pb2.User(user=f"u{n}"), count=1) for n in range(2 * MANY_AT_ONCE)]
    call = service.generation.GenerateMany(generation_pb2.GenerateManyRequest(requests=requests))
    reading = asyncio.ensure_future(call.read())
    await eventually(lambda: len(service.engine.requests) == MANY_AT_ONCE)
    assert service.engine.cancellations == 0
    call.cancel()
    await eventually(lambda: service.engine.cancellations == MANY_AT_ONCE)
    assert len(service.engine.requests) == MANY_AT_ONCE, "what waited was not begun"
    await asyncio.gather(reading, return_exceptions=True)


@pytest.mark.parametrize("count", [0, 101])
async def test_too_many_at_once_are_refused(service: Service, count: int) -> None:
    request = generation_pb2.GenerateManyRequest(requests=[Request(user=ALICE, count=1)] * count)
    refused = await refusal(service.generation.GenerateMany(request))
    assert refused.violations == {"requests": "must be 1 to 100 requests"}
    assert service.engine.requests == []
