"""RecommendService: chooses and orders real items by the taste of a user."""

# ruff: noqa: N802, D102 - the protos name the methods and say what they do

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from papa_serving import tracing
from papa_serving.catalogue.recommender import Recommender
from papa_serving.contracts.attribution import Impression, ShownItem
from papa_serving.contracts.catalogue import DEFAULT_CATALOGUE, CatalogueKey, Catalogues
from papa_serving.contracts.errors import CatalogueNotFound, InvalidRequest, PapaError, Violation
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.limits import MAX_RANKED, MAX_RANKED_IMAGES, MAX_RECOMMENDED
from papa_serving.contracts.recommending import (
    Kind,
    Origin,
    Reason,
    Recommendation,
    Recommended,
    SeenItems,
    Taste,
    TasteChanged,
    TasteJudge,
    Wish,
)
from papa_serving.gateway.backends import KnownBackbone
from papa_serving.gateway.conversion import validation
from papa_serving.gateway.conversion.catalogue_items import value_to_wire
from papa_serving.gateway.conversion.filters import filters
from papa_serving.gateway.conversion.picture_reader import PictureReader
from papa_serving.gateway.conversion.pictures import INCOMPLETE, BadPicture, begins_as_picture
from papa_serving.gateway.engine_client import EngineClient
from papa_serving.gateway.impressions import Impressions
from papa_serving.gateway.rpc.admission import caller
from papa_serving.gateway.rpc.edge import Context
from papa_serving.metrics import RANKED_ITEMS, RANKINGS, RECOMMENDATIONS, RECOMMENDED_ITEMS
from papa_serving.settings import GatewaySettings
from papa_serving.stubs.engine.v1 import engine_pb2
from papa_serving.stubs.serving.v1 import recommend_pb2, recommend_pb2_grpc

DIVERSITY = 0.3
"""Where a request names none."""

_ORIGINS = {
    engine_pb2.Kind.ORIGIN_DRAWN: Origin.DRAWN,
    engine_pb2.Kind.ORIGIN_LIKED: Origin.LIKED,
    engine_pb2.Kind.ORIGIN_QUESTION: Origin.QUESTION,
    engine_pb2.Kind.ORIGIN_BACKBONE: Origin.BACKBONE,
}
_REASONS = {
    Reason.NEAR_DRAWN: recommend_pb2.REASON_NEAR_DRAWN,
    Reason.NEAR_LIKED: recommend_pb2.REASON_NEAR_LIKED,
    Reason.EXPLORES: recommend_pb2.REASON_EXPLORES,
}


class EngineTastes(TasteJudge):
    """Asks the generator."""

    def __init__(self, engine: EngineClient) -> None:
        self._engine = engine

    @override
    async def taste(self, user: UserKey, encoder: str) -> Taste:
        answer = await self._engine.judge(user, encoder, kinds=True)
        known = [_kind(each) for each in answer.kinds if each.origin in _ORIGINS]
        return Taste(answer.revision, answer.labels, known, answer.teaching)

    @override
    async def probabilities(
        self, user: UserKey, encoder: str, embeddings: Sequence[bytes], revision: str
    ) -> NDArray[np.float32]:
        answer = await self._engine.judge(user, encoder, embeddings)
        if answer.revision != revision:
            raise TasteChanged(answer.revision)
        return np.array(answer.probabilities or [math.nan] * len(embeddings), np.float32)


class RecommendService(recommend_pb2_grpc.RecommendServiceServicer):
    """Validates, and leaves the choice to `papa_serving.catalogue.recommender`."""

    def __init__(
        self,
        limits: GatewaySettings,
        catalogues: Catalogues,
        engine: EngineClient,
        seen: SeenItems,
        backbone: KnownBackbone,
        pictures: PictureReader,
        impressions: Impressions,
    ) -> None:
        self._impressions = impressions
        self._limits, self._catalogues, self._engine = limits, catalogues, engine
        self._backbone, self._pictures = backbone, pictures
        self._recommender = Recommender(catalogues, EngineTastes(engine), seen)

    async def Recommend(
        self, request: recommend_pb2.RecommendRequest, context: Context
    ) -> recommend_pb2.RecommendResponse:
        try:
            wish, name = self._wish(request)
            made = await self._recommender.recommend(wish)
        except PapaError as error:
            RECOMMENDATIONS.labels(error.reason).inc()
            raise
        basis = "taste" if made.personal else "backbone"
        RECOMMENDATIONS.labels(basis).inc()
        for item in made.items:
            RECOMMENDED_ITEMS.labels(_REASON_NAMES[item.reason]).inc()
        tracing.current().note({"papa.basis": basis, "papa.items": len(made.items)})
        self._impressions.keep(wish.user, _impression(name, wish, made))
        return _response(name, made)

    async def Rank(self, request: recommend_pb2.RankRequest, context: Context) -> recommend_pb2.RankResponse:
        try:
            response = await self._ranking(request, context)
        except PapaError as error:
            RANKINGS.labels(error.reason).inc()
            raise
        RANKINGS.labels("ranked").inc()
        RANKED_ITEMS.inc(len(response.items))
        return response

    async def _ranking(self, request: recommend_pb2.RankRequest, context: Context) -> recommend_pb2.RankResponse:
        user, catalogue = self._checked_rank(request)
        if request.images:
            remaining = context.time_remaining()
            deadline = None if remaining is None else time.monotonic() + remaining
            encoder, embeddings = await self._embedded(user, request.images, deadline)
        else:
            encoder = await self._catalogues.encoder(catalogue)
            if not encoder:
                raise CatalogueNotFound("the tenant has no catalogue of this name with items in it", field="catalogue")
            embeddings = await self._catalogues.embeddings(catalogue, request.item_ids)
        known = [index for index, embedding in enumerate(embeddings) if embedding]
        judged = await self._engine.judge(user, encoder, [each for each in embeddings if each])
        chances = dict(zip(known, judged.probabilities or [math.nan] * len(known), strict=True))
        # What is not known comes last, and among equals the order of the request stays.
        ranked = sorted(known, key=lambda index: math.inf if math.isnan(chances[index]) else -chances[index])
        names = request.item_ids or [""] * len(embeddings)
        return recommend_pb2.RankResponse(
            items=[_ranked(index, names[index], chances[index]) for index in ranked],
            missing=[name for name, embedding in zip(names, embeddings, strict=True) if not embedding],
            revision=judged.revision,
        )

    def _wish(self, request: recommend_pb2.RecommendRequest) -> tuple[Wish, str]:
        """What is asked for, and the name of the answer. Charges the user. Raises InvalidRequest, Forbidden,
        RateLimited."""
        violations: list[Violation] = []
        validation.check_user(request.user, "user", violations)
        if not 1 <= request.count <= MAX_RECOMMENDED:
            violations.append(Violation("count", f"must be 1 to {MAX_RECOMMENDED}"))
        if request.catalogue:
            validation.check_id(request.catalogue, "catalogue", violations)
        asked = filters(request.filters, violations)
        violations += [
            Violation(field, "must be in [0, 1]")
            for field in ("diversity", "min_like_probability", "exploration")
            if not 0.0 <= getattr(request, field) <= 1.0  # written so that a NaN is refused as well
        ]
        validation.refuse(violations)
        user, name = caller.get().charge(request.user), secrets.token_hex(16)
        wish = Wish(
            user=user,
            catalogue=CatalogueKey(user.tenant, request.catalogue or DEFAULT_CATALOGUE),
            count=request.count,
            seed=int(name[:16], 16),
            filters=asked,
            diversity=request.diversity if request.HasField("diversity") else DIVERSITY,
            exclude_seen=request.exclude_seen if request.HasField("exclude_seen") else True,
            min_like_probability=request.min_like_probability,
            exploration=request.exploration if request.HasField("exploration") else None,
        )
        return wish, name

    def _checked_rank(self, request: recommend_pb2.RankRequest) -> tuple[UserKey, CatalogueKey]:
        """Charges the user, for each picture as for an item to draw. Raises InvalidRequest, Forbidden, RateLimited."""
        violations: list[Violation] = []
        validation.check_user(request.user, "user", violations)
        if request.catalogue:
            validation.check_id(request.catalogue, "catalogue", violations)
        if bool(request.item_ids) == bool(request.images):
            violations.append(Violation("item_ids", "give item_ids or images, one of them"))
        elif len(request.item_ids) > MAX_RANKED or len(set(request.item_ids)) < len(request.item_ids):
            violations.append(Violation("item_ids", f"must be at most {MAX_RANKED}, each once"))
        elif len(request.images) > MAX_RANKED_IMAGES:
            violations.append(Violation("images", f"must be at most {MAX_RANKED_IMAGES}"))
        else:
            for index, item_id in enumerate(request.item_ids):
                validation.check_id(item_id, f"item_ids[{index}]", violations)
            for index, image in enumerate(request.images):
                if not 1 <= len(image) <= self._limits.max_image_bytes:
                    what = f"must be 1 to {self._limits.max_image_bytes} bytes"
                    violations.append(Violation(f"images[{index}]", what))
                elif not begins_as_picture(image):
                    violations.append(Violation(f"images[{index}]", INCOMPLETE))
        validation.refuse(violations)
        user = caller.get().charge(request.user, max(1, len(request.images)))
        return user, CatalogueKey(user.tenant, request.catalogue or DEFAULT_CATALOGUE)

    async def _embedded(
        self, user: UserKey, images: Sequence[bytes], deadline: float | None
    ) -> tuple[str, Sequence[bytes]]:
        """The name of the encoder, and the embeddings."""
        shape = (await self._backbone.info()).image_shape
        decoded = await asyncio.gather(
            *(self._pictures.read(user, image, shape, deadline=deadline) for image in images), return_exceptions=True
        )
        violations = [
            Violation(f"images[{index}]", str(each))
            for index, each in enumerate(decoded)
            if isinstance(each, BadPicture)
        ]
        if violations:
            raise InvalidRequest(violations)
        samples = list[bytes]()
        for each in decoded:
            if isinstance(each, BaseException):
                raise each
            samples.append(each)
        embedded = await self._engine.embed(user.tenant, samples)
        return embedded.encoder, embedded.embeddings


def _kind(message: engine_pb2.Kind) -> Kind:
    direction = np.frombuffer(message.direction, "<f2").astype(np.float32)
    return Kind(_ORIGINS[message.origin], direction, message.share)


_REASON_NAMES = {Reason.NEAR_DRAWN: "near_drawn", Reason.NEAR_LIKED: "near_liked", Reason.EXPLORES: "explores"}


def _response(name: str, made: Recommendation) -> recommend_pb2.RecommendResponse:
    return recommend_pb2.RecommendResponse(
        recommendation_id=name,
        items=map(_item, made.items),
        revision=made.revision,
        basis=recommend_pb2.BASIS_TASTE if made.personal else recommend_pb2.BASIS_BACKBONE,
    )


def _impression(name: str, wish: Wish, made: Recommendation) -> Impression:
    shown = [ShownItem(item.item_id, item.like_probability, item.reason is Reason.EXPLORES) for item in made.items]
    return Impression("recommendation_id", name, shown, made.revision, wish.catalogue.name)


def _item(item: Recommended) -> recommend_pb2.RecommendedItem:
    return recommend_pb2.RecommendedItem(
        item_id=item.item_id,
        like_probability=item.like_probability,
        reason=_REASONS[item.reason],
        metadata={key: value_to_wire(value) for key, value in item.metadata.items()},
    )


def _ranked(index: int, item_id: str, chance: float) -> recommend_pb2.RankedItem:
    known = None if math.isnan(chance) else chance
    return recommend_pb2.RankedItem(index=index, item_id=item_id, like_probability=known)
