"""Converts between the records of catalogues and protobuf messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC

from papa_serving.client.errors import error_of_outcome
from papa_serving.client.records import (
    Catalogue,
    CatalogueItem,
    CatalogueList,
    MetadataValue,
    NewItem,
    Put,
    PutOutcome,
)
from papa_serving.contracts.errors import InvalidRequest, Violation
from papa_serving.stubs.serving.v1 import catalogue_pb2, feedback_pb2

_RESULTS = {
    catalogue_pb2.PUT_RESULT_ADDED: Put.ADDED,
    catalogue_pb2.PUT_RESULT_REPLACED: Put.REPLACED,
    catalogue_pb2.PUT_RESULT_UNCHANGED: Put.UNCHANGED,
}


def catalogue_message(name: str, tenant: str) -> catalogue_pb2.Catalogue:
    """Raises InvalidRequest for what no message can hold."""
    try:
        return catalogue_pb2.Catalogue(tenant=tenant, name=name)
    except (TypeError, ValueError) as error:
        raise InvalidRequest([Violation("catalogue", f"cannot be sent: {error}")]) from error


def put_request(item: NewItem, catalogue: catalogue_pb2.Catalogue) -> catalogue_pb2.PutItemsRequest:
    """The message of one item. Raises ValueError for what no message can hold."""
    try:
        return catalogue_pb2.PutItemsRequest(catalogue=catalogue, item=_item_message(item))
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"cannot be sent: {error}") from error


def put_requests(items: Sequence[NewItem], catalogue: catalogue_pb2.Catalogue) -> list[catalogue_pb2.PutItemsRequest]:
    """One message per item. Raises InvalidRequest, which names each item that no message can hold."""
    requests, violations = [], []
    for index, item in enumerate(items):
        try:
            requests.append(put_request(item, catalogue))
        except ValueError as error:
            violations.append(Violation(f"items[{index}]", str(error)))
    if violations:
        raise InvalidRequest(violations)
    return requests


def outcome(message: catalogue_pb2.PutItemsResponse) -> PutOutcome:
    """What became of one item."""
    if not message.HasField("error"):
        return PutOutcome(message.item_id, _RESULTS[message.ack.result])
    error = message.error
    same = feedback_pb2.FeedbackError(
        code=error.code,
        reason=error.reason,
        message=error.message,
        field=error.field,
        retry_after_seconds=error.retry_after_seconds,
    )
    return PutOutcome(message.item_id, error=error_of_outcome(same))


def item(message: catalogue_pb2.CatalogueItem) -> CatalogueItem:
    """One stored item."""
    return CatalogueItem(
        message.item_id, metadata(message.metadata), message.updated_at.ToDatetime(UTC), message.has_image
    )


def metadata(messages: Mapping[str, catalogue_pb2.MetadataValue]) -> dict[str, MetadataValue]:
    """The metadata of one item."""
    return {key: _value(value) for key, value in messages.items()}


def catalogues(message: catalogue_pb2.ListCataloguesResponse) -> CatalogueList:
    """The catalogues of a tenant."""
    found = tuple(Catalogue(each.name, each.items, each.encoder) for each in message.catalogues)
    return CatalogueList(found, message.encoder, message.embedding_size)


def _item_message(item: NewItem) -> catalogue_pb2.NewItem:
    message = catalogue_pb2.NewItem(item_id=item.item_id, metadata=_metadata_messages(item.metadata))
    if item.embedding:
        message.embedding.CopyFrom(catalogue_pb2.Embedding(values=item.embedding, encoder=item.encoder))
    else:
        message.image = item.image
    return message


def _metadata_messages(values: Mapping[str, MetadataValue]) -> dict[str, catalogue_pb2.MetadataValue]:
    return {key: _value_message(value) for key, value in values.items()}


def _value_message(value: MetadataValue) -> catalogue_pb2.MetadataValue:
    if isinstance(value, bool):
        return catalogue_pb2.MetadataValue(flag=value)
    if isinstance(value, str):
        return catalogue_pb2.MetadataValue(text=value)
    if isinstance(value, tuple | list):
        return catalogue_pb2.MetadataValue(texts=catalogue_pb2.Texts(values=value))
    return catalogue_pb2.MetadataValue(number=value)


def _value(message: catalogue_pb2.MetadataValue) -> MetadataValue:
    match message.WhichOneof("kind"):
        case "texts":
            return tuple(message.texts.values)
        case "flag":
            return message.flag
        case "text":
            return message.text
        case _:
            return message.number
