"""CatalogueService over a real socket: what is stored, what is refused, and whose it is."""

from __future__ import annotations

from collections.abc import Iterable

import grpc
import pytest
from papa_serving.contracts.catalogue import CatalogueItem, CatalogueKey
from papa_serving.contracts.errors import StorageUnavailable
from papa_serving.contracts.items import BackboneInfo
from papa_serving.contracts.samples import unpack_sample
from papa_serving.gateway.auth.identity import Identity, Scope
from papa_serving.stubs.engine.v1 import engine_pb2
from papa_serving.stubs.serving.v1 import catalogue_pb2, feedback_pb2, types_pb2

from tests.gateway.support.service import Service, refusal
from tests.gateway.support.stock import Catalogue, New, Value, item, pictured, png, put

ADDED, REPLACED, UNCHANGED = (
    catalogue_pb2.PUT_RESULT_ADDED,
    catalogue_pb2.PUT_RESULT_REPLACED,
    catalogue_pb2.PUT_RESULT_UNCHANGED,
)


def results(responses: Iterable[catalogue_pb2.PutItemsResponse]) -> list[int | str]:
    """The result of each item, or the reason of its error."""
    return [response.error.reason or response.ack.result for response in responses]


async def test_an_item_is_there_as_it_was_put(service: Service) -> None:
    labels = Value(texts=catalogue_pb2.Texts(values=["new", "sale"]))
    metadata = {"kind": Value(text="shoe"), "price": Value(number=9.5), "available": Value(flag=True), "tags": labels}
    assert results(await put(service, pictured("a", **metadata), pictured("b"))) == [ADDED, ADDED]
    found = (await service.catalogue.GetItem(catalogue_pb2.CatalogueServiceGetItemRequest(item_id="a"))).item
    assert (found.item_id, dict(found.metadata), found.has_image) == ("a", metadata, True)
    assert found.updated_at.seconds > 1_700_000_000
    assert sum(len(request.samples) for request in service.engine.embedded) == 2
    refused = await refusal(service.catalogue.GetItem(catalogue_pb2.CatalogueServiceGetItemRequest(item_id="c")))
    assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, "ITEM_NOT_FOUND")


async def test_putting_it_again_costs_no_embedding_unless_it_has_changed(service: Service) -> None:
    await put(service, pictured("a"), pictured("b"))
    assert results(await put(service, pictured("a"), pictured("b"))) == [UNCHANGED, UNCHANGED]
    assert sum(len(request.samples) for request in service.engine.embedded) == 2
    changed = [pictured("a", shade=10), pictured("b", kind=Value(text="shoe"))]
    assert results(await put(service, *changed)) == [REPLACED, REPLACED]


async def test_of_two_in_one_stream_the_later_one_counts(service: Service) -> None:
    first, second = item("a", n=Value(number=1)), item("a", n=Value(number=2))
    assert results(await put(service, first, second, first)) == [ADDED, REPLACED, REPLACED]
    found = (await service.catalogue.GetItem(catalogue_pb2.CatalogueServiceGetItemRequest(item_id="a"))).item
    assert found.metadata["n"].number == 1


async def test_a_bad_item_gets_its_error_and_the_others_are_stored(service: Service) -> None:
    texts = catalogue_pb2.Texts(values=["x"] * 33)
    bad = {
        "item.item_id": New(item_id="", image=png()),
        "item.content": New(item_id="n"),
        "item.image": New(item_id="n", image=b"GIF89a"),
        "item.embedding.values": New(
            item_id="n", embedding=catalogue_pb2.Embedding(values=[1.0], encoder="the-encoder")
        ),
        "item.metadata": item("n", **{"no key": Value(text="x")}),
        "item.metadata.bytes": item("n", **{f"k{number}": Value(text="x" * 256) for number in range(32)}),
        "item.metadata['price']": item("n", price=Value(number=float("nan"))),
        "item.metadata['large']": item("n", large=Value(number=1e15)),
        "item.metadata['tags']": item("n", tags=Value(texts=texts)),
        "item.metadata['text']": item("n", text=Value(text="x" * 257)),
        "item.metadata['none']": item("n", none=Value()),
    }
    responses = await put(service, item("a"), *bad.values(), item("b"))
    assert [response.error.field for response in responses[1:-1]] == [field.removesuffix(".bytes") for field in bad]
    assert {response.error.reason for response in responses[1:-1]} == {"INVALID_REQUEST"}
    assert [results(responses)[0], results(responses)[-1]] == [ADDED, ADDED]
    listed = await service.catalogue.ListItems(catalogue_pb2.ListItemsRequest())
    assert [each.item_id for each in listed.items] == ["a", "b"]


async def test_a_broken_picture_is_refused_by_its_field(service: Service) -> None:
    (response,) = await put(service, New(item_id="a", image=png()[:45]))
    assert (response.error.reason, response.error.field) == ("INVALID_REQUEST", "item.image")


async def test_an_embedding_is_taken_if_it_is_by_this_encoder(service: Service) -> None:
    ours = catalogue_pb2.Embedding(values=[1.0, 2.0, 3.0, 4.0], encoder="the-encoder")
    theirs = catalogue_pb2.Embedding(values=[1.0, 2.0, 3.0, 4.0], encoder="another")
    zeros = catalogue_pb2.Embedding(values=[0.0] * 4, encoder="the-encoder")
    infinite = catalogue_pb2.Embedding(values=[1e30, 0.0, 0.0, 0.0], encoder="the-encoder")
    embeddings = (ours, theirs, zeros, infinite)
    items = [New(item_id=f"i{number}", embedding=embedding) for number, embedding in enumerate(embeddings)]
    assert results(await put(service, *items)) == [ADDED, "ENCODER_CHANGED", "INVALID_REQUEST", "INVALID_REQUEST"]
    found = (await service.catalogue.GetItem(catalogue_pb2.CatalogueServiceGetItemRequest(item_id="i0"))).item
    assert not found.has_image


async def test_pages_lead_through_all_items(service: Service) -> None:
    names = [f"i{number:02d}" for number in range(7)]
    await put(service, *(item(name) for name in reversed(names)))
    found, token = [], ""
    for _ in range(3):
        page = await service.catalogue.ListItems(catalogue_pb2.ListItemsRequest(page_size=3, page_token=token))
        found += [each.item_id for each in page.items]
        token = page.next_page_token
    assert (found, token) == (names, "")


async def test_a_page_of_large_items_ends_early(unstarted: Service) -> None:
    await unstarted.start(max_message_bytes=40_000)
    large = {f"k{number}": Value(text="x" * 250) for number in range(30)}
    names = [f"i{number}" for number in range(7)]
    await put(unstarted, *(item(name, **large) for name in names))
    found, token, pages = [], "", 0
    while token or not pages:
        page = await unstarted.catalogue.ListItems(catalogue_pb2.ListItemsRequest(page_token=token))
        assert 1 <= len(page.items) <= 2
        found += [each.item_id for each in page.items]
        token, pages = page.next_page_token, pages + 1
    assert found == names


async def test_deleted_items_are_gone(service: Service) -> None:
    await put(service, item("a"), item("b"))
    request = catalogue_pb2.DeleteItemsRequest(item_ids=["a", "a", "never"])
    assert (await service.catalogue.DeleteItems(request)).deleted == 1
    listed = await service.catalogue.ListItems(catalogue_pb2.ListItemsRequest())
    assert [each.item_id for each in listed.items] == ["b"]
    for ids in ([], ["x"] * 1_001, [""]):
        refused = await refusal(service.catalogue.DeleteItems(catalogue_pb2.DeleteItemsRequest(item_ids=ids)))
        assert refused.reason == "INVALID_REQUEST"


async def test_tenants_and_catalogues_share_nothing(service: Service) -> None:
    await put(service, item("a"), name="summer")
    await put(service, item("b"), tenant="rival", name="summer")
    await put(service, item("c"))
    answer = await service.catalogue.ListCatalogues(catalogue_pb2.ListCataloguesRequest())
    assert [(each.name, each.items, each.encoder) for each in answer.catalogues] == [
        ("default", 1, "the-encoder"), ("summer", 1, "the-encoder"),
    ]  # fmt: skip
    assert (answer.encoder, answer.embedding_size) == ("the-encoder", 4)
    theirs = catalogue_pb2.CatalogueServiceGetItemRequest(
        catalogue=Catalogue(tenant="rival", name="summer"), item_id="a"
    )
    assert (await refusal(service.catalogue.GetItem(theirs))).reason == "ITEM_NOT_FOUND"


async def test_a_full_catalogue_says_so(service: Service) -> None:
    await put(service, *(item(f"i{number}") for number in range(50)))
    assert results(await put(service, item("i0", shade=1), item("more"))) == [REPLACED, "CATALOGUE_FULL"]
    for name in ("second", "third"):
        await put(service, item("a"), name=name)
    assert results(await put(service, item("a"), name="fourth")) == ["CATALOGUE_FULL"]


async def test_a_changed_encoder_is_not_mixed_with_the_former_one(unstarted: Service) -> None:
    await unstarted.start()
    await put(unstarted, item("a"))
    await unstarted.gateway.close()
    unstarted.engine.encoder = "the-next-encoder"
    await unstarted.engine.die()
    await unstarted.start()
    assert results(await put(unstarted, pictured("b"))) == ["ENCODER_CHANGED"]
    await unstarted.catalogue.DeleteItems(catalogue_pb2.DeleteItemsRequest(item_ids=["a"]))
    assert results(await put(unstarted, pictured("b"))) == [ADDED]


async def test_feedback_names_an_item_and_takes_a_copy_of_its_picture(service: Service) -> None:
    await put(service, pictured("shoe", shade=7), item("embedded"), name="summer")
    await put(service, pictured("theirs"), tenant="rival", name="summer")

    def event(event_id: str, item_id: str) -> feedback_pb2.FeedbackEvent:
        named = feedback_pb2.NamedCatalogueItem(catalogue="summer", item_id=item_id)
        user = types_pb2.User(user="alice")
        return feedback_pb2.FeedbackEvent(event_id=event_id, user=user, catalogue_item=named, grade=0.5)

    names = ("shoe", "unknown", "theirs", "embedded", "")
    requests = [feedback_pb2.StreamFeedbackRequest(event=event(f"e{i}", name)) for i, name in enumerate(names)]
    outcomes = [each.outcome async for each in service.feedback.StreamFeedback(iter(requests))]
    assert [(each.error.reason, each.error.field) for each in outcomes] == [
        ("", ""),
        ("ITEM_NOT_FOUND", "catalogue_item.item_id"),
        ("ITEM_NOT_FOUND", "catalogue_item.item_id"),
        ("INVALID_REQUEST", "catalogue_item.item_id"),
        ("INVALID_REQUEST", "catalogue_item.item_id"),
    ]
    (accepted,) = service.log.accepted
    assert (accepted.grade, unpack_sample(accepted.image).tolist()) == (0.5, [[[7] * 28] * 28])
    service.items.info = BackboneInfo("b", "colour", (3, 16, 24))
    await service.stop()
    await service.start()
    request = feedback_pb2.SubmitFeedbackRequest(events=[event("later", "shoe")])
    assert (await refusal(service.feedback.SubmitFeedback(request))).reason == "ENCODER_CHANGED"


@pytest.mark.parametrize("then", ["replaced", "embedded", "deleted", "of another backbone", "damaged"])
async def test_a_retry_of_feedback_changes_nothing_whatever_has_become_of_the_item(service: Service, then: str) -> None:
    await put(service, pictured("shoe", shade=7))

    async def submit(event_id: str, grade: float = 0.5) -> feedback_pb2.FeedbackAck:
        named = feedback_pb2.NamedCatalogueItem(item_id="shoe")
        user = types_pb2.User(user="alice")
        event = feedback_pb2.FeedbackEvent(event_id=event_id, user=user, catalogue_item=named, grade=grade)
        answer = await service.feedback.SubmitFeedback(feedback_pb2.SubmitFeedbackRequest(events=[event]))
        return answer.outcomes[0].ack

    assert not (await submit("e1")).duplicate
    match then:
        case "replaced":
            await put(service, pictured("shoe", shade=9))
        case "embedded":
            await put(service, item("shoe"))
        case "deleted":
            await service.catalogue.DeleteItems(catalogue_pb2.DeleteItemsRequest(item_ids=["shoe"]))
        case "damaged":
            key = CatalogueKey("default", "default")
            await service.catalogues.put(key, CatalogueItem("shoe", b"\0\x3c" * 4, "the-encoder", sample=b"broken"))
        case _:
            service.items.info = BackboneInfo("b", "colour", (3, 16, 24))
            await service.stop()
            await service.start()
    assert (await submit("e1")).duplicate
    assert len(service.log.accepted) == 1
    assert (await refusal(submit("e1", grade=1.0))).reason == "EVENT_ID_REUSED"
    if then == "replaced":
        assert not (await submit("e2")).duplicate
    else:
        reasons = {"embedded": "INVALID_REQUEST", "deleted": "ITEM_NOT_FOUND", "damaged": "STORAGE_DAMAGED"}
        assert (await refusal(submit("e2"))).reason == reasons.get(then, "ENCODER_CHANGED")


async def test_what_the_engine_refuses_may_be_sent_again(service: Service) -> None:
    """The others of the same group keep their own outcomes."""
    await put(service, item("a"))
    service.engine.refusals = [engine_pb2.RunError(reason="QUEUE_FULL", message="full", retry_after_seconds=2.0)]
    responses = await put(service, item("a"), item("c"), New(item_id="d"), pictured("b"))
    assert results(responses) == [UNCHANGED, ADDED, "INVALID_REQUEST", "QUEUE_FULL"]
    assert responses[-1].error.retry_after_seconds == 2.0
    assert results(await put(service, pictured("b"))) == [ADDED]


async def test_without_an_engine_only_pictures_have_to_wait(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    await put(service, item("a"), pictured("b"))
    monkeypatch.setattr("papa_serving.gateway.backends.BACKBONE_SECONDS", 0.0)
    await service.engine.die()
    again = (item("a"), pictured("b"), item("c"), pictured("d"))
    assert results(await put(service, *again)) == [UNCHANGED, UNCHANGED, ADDED, "GENERATOR_UNAVAILABLE"]
    await service.engine.start(service.engine.port)
    await service.until_serving("papa.serving.v1.GenerationService")
    assert results(await put(service, pictured("d"))) == [ADDED]


async def test_catalogues_are_told_of_where_no_engine_has_ever_answered(unstarted: Service) -> None:
    await unstarted.catalogues.put(CatalogueKey("default", "summer"), CatalogueItem("a", b"\0\x3c" * 4, "the-encoder"))
    await unstarted.start()
    await unstarted.engine.die()
    answer = await unstarted.catalogue.ListCatalogues(catalogue_pb2.ListCataloguesRequest())
    assert [(each.name, each.items, each.encoder) for each in answer.catalogues] == [("summer", 1, "the-encoder")]
    assert (answer.encoder, answer.embedding_size) == ("", 0)


async def test_storage_that_is_away_is_each_items_error(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_: object) -> None:
        raise StorageUnavailable("Redis is away", retry_after=1.0)

    monkeypatch.setattr(service.catalogues, "fingerprints", away)
    assert results(await put(service, item("a"))) == ["STORAGE_UNAVAILABLE"]


@pytest.mark.parametrize("user", ["", "alice"])
@pytest.mark.parametrize("scope", list(Scope))
async def test_who_may_manage_a_catalogue(unstarted: Service, user: str, scope: Scope) -> None:
    """A credential of the whole tenant with the scope `catalogue`, and it reaches no other tenant."""

    async def authenticate(_: object) -> Identity:
        return Identity("shop", True, user, scopes=frozenset({scope}))

    await unstarted.start(authenticate=authenticate)
    allowed = scope is Scope.CATALOGUE and not user
    listing = catalogue_pb2.ListItemsRequest()
    if not allowed:
        assert (await refusal(unstarted.catalogue.ListItems(listing))).reason == "FORBIDDEN"
        return
    assert results(await put(unstarted, item("a"))) == [ADDED]
    assert results(await put(unstarted, item("a"), tenant="rival")) == ["FORBIDDEN"]
    theirs = Catalogue(tenant="rival")
    for call in (
        unstarted.catalogue.ListItems(catalogue_pb2.ListItemsRequest(catalogue=theirs)),
        unstarted.catalogue.GetItem(catalogue_pb2.CatalogueServiceGetItemRequest(catalogue=theirs, item_id="a")),
        unstarted.catalogue.DeleteItems(catalogue_pb2.DeleteItemsRequest(catalogue=theirs, item_ids=["a"])),
        unstarted.catalogue.ListCatalogues(catalogue_pb2.ListCataloguesRequest(tenant="rival")),
    ):
        assert (await refusal(call)).reason == "FORBIDDEN"


async def test_items_are_charged_to_the_tenant(unstarted: Service) -> None:
    await unstarted.start(rates={"tenant": 0.001, "tenant_burst": 2.0})
    assert results(await put(unstarted, item("a"), item("b"), item("c"))) == [ADDED, ADDED, "RATE_LIMITED"]
