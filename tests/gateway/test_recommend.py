"""RecommendService over a real socket: what is chosen, what is refused, and whose it is."""

from __future__ import annotations

import json
import math

import grpc
import pytest
from papa_serving.contracts.catalogue import CatalogueKey
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.limits import MAX_RANKED, MAX_RANKED_IMAGES, MAX_RECOMMENDED
from papa_serving.gateway.auth.identity import Identity, Scope
from papa_serving.stubs.engine.v1 import engine_pb2
from papa_serving.stubs.serving.v1 import catalogue_pb2, recommend_pb2, types_pb2, user_pb2
from prometheus_client import REGISTRY

from tests.gateway.support.service import Service, eventually, refusal
from tests.gateway.support.stock import LIKES_LARGE, SPREAD, item, pictured, png, put

Recommend, Rank, Filter = recommend_pb2.RecommendRequest, recommend_pb2.RankRequest, recommend_pb2.Filter
User, Value, Kind, Texts = types_pb2.User, catalogue_pb2.MetadataValue, engine_pb2.Kind, catalogue_pb2.Texts
ALICE = User(user="alice")


@pytest.fixture
async def shop(service: Service) -> Service:
    """A catalogue of 40 items, "i01" to "i40" of the chances 0.02 to 0.8, of whom alice likes the later ones."""
    service.engine.tastes["alice"], service.engine.backbone = LIKES_LARGE, SPREAD
    items = [
        item(f"i{n:02d}", shade=20 * n, price=Value(number=n), kind=Value(text="shoe" if n % 2 else "hat"))
        for n in range(1, 41)
    ]
    assert all(each.ack.result for each in await put(service, *items))
    return service


async def recommended(service: Service, **fields: object) -> recommend_pb2.RecommendResponse:
    return await service.recommend.Recommend(Recommend(**{"user": ALICE, "count": 5, "exploration": 0.0, **fields}))


def names(response: recommend_pb2.RecommendResponse) -> list[str]:
    return [each.item_id for each in response.items]


async def test_the_likeliest_items_come_with_their_probability_reason_and_metadata(shop: Service) -> None:
    answer = await recommended(shop, diversity=0.0)
    assert set(names(answer)) == {f"i{n}" for n in range(36, 41)}
    assert (answer.revision, answer.basis) == ("000002-aa", recommend_pb2.BASIS_TASTE)
    assert len(answer.recommendation_id) == 32
    for each in answer.items:
        assert each.like_probability == pytest.approx(int(each.item_id[1:]) * 0.02, abs=1e-3)
        assert each.metadata["price"].number == int(each.item_id[1:])
    assert {each.reason for each in answer.items} <= {recommend_pb2.REASON_NEAR_DRAWN, recommend_pb2.REASON_NEAR_LIKED}


async def test_a_recommendation_is_an_impression(shop: Service) -> None:
    answer = await recommended(shop)
    user = UserKey("default", ALICE.user)
    await eventually(lambda: bool(shop.state.user(user).impressions))
    (kept,) = (json.loads(record.data) for record in shop.state.user(user).impressions)
    assert (kept["recommendation_id"], kept["catalogue"]) == (answer.recommendation_id, "default")
    assert [item["item_id"] for item in kept["items"]] == names(answer)
    assert kept["revision"] == answer.revision


async def test_nothing_repeats_until_all_is_seen_unless_it_may(shop: Service) -> None:
    seen: set[str] = set()
    for _ in range(4):
        page = names(await recommended(shop, count=10))
        assert len(page) == 10
        assert not seen & set(page)
        seen |= set(page)
    assert len(seen) == 40
    assert names(await recommended(shop, count=10)) == [], "all has been seen"
    assert len(names(await recommended(shop, count=10, exclude_seen=False))) == 10
    assert len(names(await recommended(shop, user=User(user="bob"), count=10))) == 10, "bob has seen nothing"


async def test_a_page_that_explores_says_so(shop: Service) -> None:
    answer = await recommended(shop, count=4, exploration=0.25)
    reasons = [each.reason for each in answer.items]
    assert reasons.count(recommend_pb2.REASON_EXPLORES) == 1
    (asked,) = [each for each in answer.items if each.reason == recommend_pb2.REASON_EXPLORES]
    assert asked.item_id == "i01", "the nearest to the question, however unlikely it is liked"


async def test_a_new_user_gets_the_spread_of_the_backbone_and_is_told(shop: Service) -> None:
    answer = await recommended(shop, user=User(user="new"), count=10)
    assert len(answer.items) == 10
    assert (answer.basis, answer.revision) == (recommend_pb2.BASIS_BACKBONE, "")
    assert {each.reason for each in answer.items} == {recommend_pb2.REASON_EXPLORES}
    assert not any(each.HasField("like_probability") for each in answer.items)
    assert "i01" in names(answer), "the second kind has its share"
    assert {f"i{n}" for n in range(35, 41)} & set(names(answer)), "and so has the first"


async def test_every_item_passes_all_filters(shop: Service) -> None:
    hats = Filter(key="kind", any_of=Texts(values=["hat"]))
    cheap = Filter(key="price", at_most=9)
    assert set(names(await recommended(shop, count=10, filters=[hats, cheap]))) == {"i02", "i04", "i06", "i08"}
    assert names(await recommended(shop, filters=[Filter(key="price", equals=7)])) == ["i07"]
    assert names(await recommended(shop, filters=[Filter(key="price", equals=1.5)])) == []


async def test_items_below_the_asked_probability_are_left_out(shop: Service) -> None:
    answer = await recommended(shop, count=20, min_like_probability=0.69)
    assert set(names(answer)) == {f"i{n}" for n in range(35, 41)}
    assert min(each.like_probability for each in answer.items) >= 0.69


async def test_deleted_items_are_never_recommended(shop: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even one that is deleted while the page is made: another takes its place."""
    first = names(await recommended(shop, diversity=0.0, exclude_seen=False))
    await shop.catalogue.DeleteItems(catalogue_pb2.DeleteItemsRequest(item_ids=first[:2]))
    embeddings = shop.catalogues.embeddings
    assert not set(first[:2]) & set(names(await recommended(shop, exclude_seen=False)))

    async def delete_after(*given: object, **named: object) -> object:
        found = await embeddings(*given, **named)
        await shop.catalogues.delete(CatalogueKey("default", "default"), [first[2]])
        return found

    monkeypatch.setattr(shop.catalogues, "embeddings", delete_after)
    page = names(await recommended(shop, diversity=0.0, exclude_seen=False))
    assert len(page) == 5
    assert not set(first[:3]) & set(page)


async def test_each_wrong_field_is_named(shop: Service) -> None:
    bad = Recommend(
        user=User(user="", tenant="\n"),
        count=MAX_RECOMMENDED + 1,
        catalogue="a\n",
        filters=[
            Filter(key="no key", equals=1),
            Filter(key="k"),
            Filter(key="k", any_of=Texts()),
            Filter(key="k", has_any_of=Texts(values=["x" * 257])),
            Filter(key="k", at_least=math.nan),
            Filter(key="k", at_most=1e15),
            Filter(key="k", **{"is": False}),
        ],
        diversity=1.5,
        min_like_probability=math.nan,
        exploration=-0.1,
    )
    refused = await refusal(shop.recommend.Recommend(bad))
    assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert set(refused.violations) == {
        "user.user", "user.tenant", "count", "catalogue", "filters[0].key", "filters[1].condition", "filters[2].any_of",
        "filters[3].has_any_of", "filters[4].at_least", "filters[5].at_most", "diversity", "min_like_probability",
        "exploration",
    }  # fmt: skip
    many = [Filter(key="k", equals=1)] * 17
    assert set((await refusal(recommended(shop, count=0, filters=many))).violations) == {"count", "filters"}
    assert not shop.engine.judged, "nothing was done for them"


async def test_an_unknown_catalogue_and_a_former_encoder_are_told(shop: Service) -> None:
    for call in (
        recommended(shop, catalogue="winter"),
        shop.recommend.Rank(Rank(user=ALICE, catalogue="winter", item_ids=["i01"])),
    ):
        refused = await refusal(call)
        assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, "CATALOGUE_NOT_FOUND")
    shop.gateway._backends.catalogues.encoder = _another  # type: ignore[method-assign]
    refused = await refusal(recommended(shop))
    assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ENCODER_CHANGED")


async def test_a_backbone_that_has_just_changed_is_noticed_at_once(shop: Service) -> None:
    """Though the gateway has asked for the encoder's name a moment ago."""
    await recommended(shop)
    shop.engine.encoder = "another-encoder"
    for call in (recommended(shop), shop.recommend.Rank(Rank(user=ALICE, item_ids=["i01"]))):
        refused = await refusal(call)
        assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ENCODER_CHANGED")
    ranked = await shop.recommend.Rank(Rank(user=ALICE, images=[png(10)]))
    assert len(ranked.items) == 1, "pictures are embedded anew"


async def test_an_engine_that_judges_too_few_is_unavailable(shop: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = shop.engine.judge

    async def short(request: engine_pb2.JudgeRequest) -> engine_pb2.JudgeResponse:
        answer = await judge(request)
        del answer.judgement.probabilities[1:]
        return answer

    monkeypatch.setattr(shop.engine, "judge", short)
    for call in (recommended(shop), shop.recommend.Rank(Rank(user=ALICE, item_ids=["i01", "i02"]))):
        refused = await refusal(call)
        assert (refused.code, refused.reason) == (grpc.StatusCode.UNAVAILABLE, "GENERATOR_UNAVAILABLE")


async def test_a_revision_between_two_questions_starts_the_call_again(shop: Service) -> None:
    told = shop.engine.tastes["alice"]
    newer = engine_pb2.Judgement()
    newer.CopyFrom(told)
    newer.revision = "000003-bb"

    class Changing(dict[str, engine_pb2.Judgement]):
        asked = 0

        def get(self, key: str, default: object = None) -> engine_pb2.Judgement:  # type: ignore[override]
            self.asked += 1
            return told if self.asked == 1 else newer

    shop.engine.tastes = Changing()
    answer = await recommended(shop)
    assert (answer.revision, len(answer.items)) == ("000003-bb", 5)


async def test_every_outcome_is_counted(shop: Service) -> None:
    def counted(name: str, outcome: str) -> float:
        return REGISTRY.get_sample_value(name, {"outcome": outcome}) or 0.0

    for name, call, outcome in (
        ("papa_recommendations_total", lambda: recommended(shop, count=0), "INVALID_REQUEST"),
        ("papa_recommendations_total", lambda: recommended(shop, catalogue="winter"), "CATALOGUE_NOT_FOUND"),
        ("papa_rankings_total", lambda: shop.recommend.Rank(Rank(user=ALICE)), "INVALID_REQUEST"),
        ("papa_rankings_total", lambda: shop.recommend.Rank(Rank(user=ALICE, images=[b"x" * 9])), "INVALID_REQUEST"),
    ):
        before = counted(name, outcome)
        await refusal(call())
        assert counted(name, outcome) == before + 1
    before = counted("papa_rankings_total", "ranked")
    await shop.recommend.Rank(Rank(user=ALICE, item_ids=["i01"]))
    assert counted("papa_rankings_total", "ranked") == before + 1


async def _another(catalogue: CatalogueKey) -> str:
    return "another-encoder"


async def test_a_deleted_user_is_told_and_leaves_nothing(shop: Service) -> None:
    await recommended(shop)
    await shop.user.DeleteUser(user_pb2.DeleteUserRequest(user=ALICE))
    key = UserKey("default", "alice")
    assert await shop.gateway._backends.seen.of_user(key, CatalogueKey("default", "default")) == frozenset()
    refused = await refusal(recommended(shop))
    assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "USER_DELETED")


async def test_tenants_never_see_each_others_items(unstarted: Service) -> None:
    identity = Identity("shop", bound=True, scopes=frozenset(Scope))

    async def authenticate(metadata: object) -> Identity:
        return identity

    await unstarted.start(authenticate)
    unstarted.engine.backbone = SPREAD
    await put(unstarted, item("a"), tenant="shop")
    assert names(await recommended(unstarted)) == ["a"]
    identity = Identity("rival", bound=True, scopes=frozenset(Scope))
    assert (await refusal(recommended(unstarted))).reason == "CATALOGUE_NOT_FOUND"
    assert (await refusal(recommended(unstarted, user=User(tenant="shop", user="alice")))).reason == "FORBIDDEN"
    assert (await refusal(unstarted.recommend.Rank(Rank(user=ALICE, item_ids=["a"])))).reason == "CATALOGUE_NOT_FOUND"
    identity = Identity("rival", bound=True, user="bob", scopes=frozenset({Scope.GENERATE}))
    assert (await refusal(recommended(unstarted))).reason == "FORBIDDEN", "another user's"
    identity = Identity("rival", bound=True, scopes=frozenset({Scope.FEEDBACK, Scope.CATALOGUE, Scope.ADMIN}))
    assert (await refusal(recommended(unstarted))).reason == "FORBIDDEN", "another scope"


async def test_given_items_are_ordered_by_how_likely_they_are_liked(shop: Service) -> None:
    answer = await shop.recommend.Rank(Rank(user=ALICE, item_ids=["i10", "none", "i30", "i20"]))
    assert [(each.index, each.item_id) for each in answer.items] == [(2, "i30"), (3, "i20"), (0, "i10")]
    assert [each.like_probability for each in answer.items] == pytest.approx([0.6, 0.4, 0.2], abs=1e-3)
    assert (list(answer.missing), answer.revision) == (["none"], "000002-aa")
    answer = await shop.recommend.Rank(Rank(user=User(user="new"), item_ids=["i10", "i30", "i20"]))
    assert [each.item_id for each in answer.items] == ["i10", "i30", "i20"], "nothing is known: as they came"
    assert not any(each.HasField("like_probability") for each in answer.items)


async def test_pictures_are_ranked_without_being_stored(shop: Service) -> None:
    answer = await shop.recommend.Rank(Rank(user=ALICE, images=[png(10), png(250), png(100)]))
    assert [(each.index, each.item_id) for each in answer.items] == [(1, ""), (2, ""), (0, "")]
    listed = await shop.catalogue.ListCatalogues(catalogue_pb2.ListCataloguesRequest())
    assert [each.items for each in listed.catalogues] == [40]
    refused = await refusal(shop.recommend.Rank(Rank(user=ALICE, images=[png(), png()[:45]])))
    assert set(refused.violations) == {"images[1]"}


async def test_what_cannot_be_ranked_is_refused(shop: Service) -> None:
    for request, field in {
        "nothing": (Rank(user=ALICE), "item_ids"),
        "both": (Rank(user=ALICE, item_ids=["a"], images=[png()]), "item_ids"),
        "twice": (Rank(user=ALICE, item_ids=["a", "a"]), "item_ids"),
        "many": (Rank(user=ALICE, item_ids=[f"i{n}" for n in range(MAX_RANKED + 1)]), "item_ids"),
        "an id": (Rank(user=ALICE, item_ids=["a", ""]), "item_ids[1]"),
        "many pictures": (Rank(user=ALICE, images=[png()] * (MAX_RANKED_IMAGES + 1)), "images"),
        "no picture": (Rank(user=ALICE, images=[png(), b"GIF89a"]), "images[1]"),
        "empty": (Rank(user=ALICE, images=[b""]), "images[0]"),
        "a catalogue": (Rank(user=ALICE, item_ids=["a"], catalogue="\n"), "catalogue"),
        "a user": (Rank(item_ids=["a"]), "user.user"),
    }.values():
        assert set((await refusal(shop.recommend.Rank(request))).violations) == {field}


async def test_an_item_without_a_picture_can_be_recommended(shop: Service) -> None:
    await put(shop, pictured("pictured", shade=255))
    answer = await shop.recommend.Rank(Rank(user=ALICE, item_ids=["i01", "pictured"]))
    assert [each.item_id for each in answer.items] == ["pictured", "i01"]
