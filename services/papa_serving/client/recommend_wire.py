"""Converts between the records of recommendations and protobuf messages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from papa_serving.client import catalogue_wire
from papa_serving.client.records import (
    AnyOf,
    Between,
    Condition,
    RankedItem,
    Ranking,
    Reason,
    Recommendation,
    RecommendedItem,
)
from papa_serving.contracts.errors import InvalidRequest, Violation
from papa_serving.stubs.serving.v1 import catalogue_pb2, recommend_pb2, types_pb2

_REASONS = {
    recommend_pb2.REASON_NEAR_DRAWN: Reason.NEAR_DRAWN,
    recommend_pb2.REASON_NEAR_LIKED: Reason.NEAR_LIKED,
    recommend_pb2.REASON_EXPLORES: Reason.EXPLORES,
}


def recommend_request(
    user: types_pb2.User, count: int, filters: Mapping[str, Condition], **fields: object
) -> recommend_pb2.RecommendRequest:
    """Fields that are None are left out. Raises InvalidRequest for what no message can hold."""
    try:
        conditions = [each for key, condition in filters.items() for each in _filters(key, condition)]
        given = {name: value for name, value in fields.items() if value is not None}
        return recommend_pb2.RecommendRequest(user=user, count=count, filters=conditions, **given)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidRequest([Violation("request", f"cannot be sent: {error}")]) from error


def rank_request(
    user: types_pb2.User, item_ids: Sequence[str], images: Sequence[bytes], catalogue: str
) -> recommend_pb2.RankRequest:
    """Raises InvalidRequest for what no message can hold."""
    try:
        return recommend_pb2.RankRequest(user=user, item_ids=item_ids, images=images, catalogue=catalogue)
    except (TypeError, ValueError) as error:
        raise InvalidRequest([Violation("request", f"cannot be sent: {error}")]) from error


def recommendation(message: recommend_pb2.RecommendResponse) -> Recommendation:
    """The chosen items."""
    items = tuple(
        RecommendedItem(
            each.item_id,
            each.like_probability if each.HasField("like_probability") else None,
            _REASONS.get(each.reason, Reason.EXPLORES),
            catalogue_wire.metadata(each.metadata),
        )
        for each in message.items
    )
    personal = message.basis == recommend_pb2.BASIS_TASTE
    return Recommendation(message.recommendation_id, items, message.revision, personal)


def ranking(message: recommend_pb2.RankResponse) -> Ranking:
    """The order of the items."""
    items = tuple(
        RankedItem(each.index, each.item_id, each.like_probability if each.HasField("like_probability") else None)
        for each in message.items
    )
    return Ranking(items, tuple(message.missing), message.revision)


def _filters(key: str, condition: Condition) -> Iterator[recommend_pb2.Filter]:
    match condition:
        case AnyOf(texts, of_several):
            field = "has_any_of" if of_several else "any_of"
            yield recommend_pb2.Filter(key=key, **{field: catalogue_pb2.Texts(values=texts)})  # type: ignore[arg-type]
        case Between(low, high):
            if low is not None:
                yield recommend_pb2.Filter(key=key, at_least=low)
            if high is not None:
                yield recommend_pb2.Filter(key=key, at_most=high)
        case bool():
            yield recommend_pb2.Filter(key=key, **{"is": condition})  # type: ignore[arg-type]
        case str():
            yield recommend_pb2.Filter(key=key, any_of=catalogue_pb2.Texts(values=[condition]))
        case _:
            yield recommend_pb2.Filter(key=key, equals=condition)
