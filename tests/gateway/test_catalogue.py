"""CatalogueService over a real socket: what is stored, what is refused, and whose it is."""

from __future__ import annotations

import io
from collections.abc import Iterable

import grpc
import pytest
from papa_serving.contracts.errors import StorageUnavailable
from papa_serving.contracts.items import BackboneInfo
from papa_serving.contracts.samples import unpack_sample
from papa_serving.gateway.auth.identity import Identity, Scope
from papa_serving.stubs.engine.v1 import engine_pb2
from papa_serving.stubs.serving.v1 import catalogue_pb2, feedback_pb2, types_pb2
from PIL import Image

from tests.gateway.support.service import Service, refusal

ADDED, REPLACED, UNCHANGED = (
    catalogue_pb2.PUT_RESULT_ADDED,
    catalogue_pb2.PUT_RESULT_REPLACED,
    catalogue_pb2.PUT_RESULT_UNCHANGED,
)
Put, New, Value, Catalogue = (
    catalogue_pb2.PutItemsRequest,
    catalogue_pb2.NewItem,
    catalogue_pb2.MetadataValue,
    catalogue_pb2.Catalogue,
)


def png(shade: int = 200) -> bytes:
    data = io.BytesIO()
    Image.new("L", (28, 28), shade).save(data, "PNG")
    return data.getvalue()


def item(item_id: str, shade: int = 200, **metadata: Value) -> New:
    """An item by its embedding: quicker to take than a picture."""
    embedding = catalogue_pb2.Embedding(values=[shade, 1.0, 1.0, 1.0], encoder="the-encoder")
    return New(item_id=item_id, embedding=embedding, metadata=metadata)


def pictured(item_id: str, shade: int = 200, **metadata: Value) -> New:
    return New(item_id=item_id, image=png(shade), metadata=metadata)


async def put(service: Service, *items: New, tenant: str = "", name: str = "") -> list[catalogue_pb2.PutItemsResponse]:
    catalogue = Catalogue(tenant=tenant, name=name)
    requests = [Put(catalogue=catalogue, item=each) for each in items]
    return [response async for response in service.catalogue.PutItems(iter(requests))]


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
    embedded = [len(request.samples) for request in service.engine.embedded]
    assert results(await put(service, pictured("a"), pictured("b"))) == [UNCHANGED, UNCHANGED]
    assert [len(request.samples) for request in service.engine.embedded] == embedded
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
        "item.metadata['price']": item("n", price=Value(number=float("nan"))),
        "item.metadata['large']": item("n", large=Value(number=1e15)),
        "item.metadata['tags']": item("n", tags=Value(texts=texts)),
        "item.metadata['text']": item("n", text=Value(text="x" * 257)),
        "item.metadata['none']": item("n", none=Value()),
    }
    responses = await put(service, item("a"), *bad.values(), item("b"))
    assert [response.error.field for response in responses[1:-1]] == list(bad)
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


async def test_without_an_engine_each_item_may_be_sent_again(service: Service) -> None:
    await put(service, item("a"))
    service.engine.refusals = [engine_pb2.RunError(reason="QUEUE_FULL", message="full", retry_after_seconds=2.0)]
    (response,) = await put(service, pictured("b"))
    assert (response.error.reason, response.error.retry_after_seconds) == ("QUEUE_FULL", 2.0)
    assert results(await put(service, pictured("b"))) == [ADDED]


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
