"""Converts between records and protobuf messages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Any, TypeVar

from google.protobuf import timestamp_pb2
from google.protobuf.message import Message

from papa_serving.client.errors import error_of_outcome
from papa_serving.client.records import (
    DeadLetter,
    DeletionReceipt,
    FeedbackEvent,
    GenerateOptions,
    Generation,
    ImageFormat,
    ImageOptions,
    Item,
    ItemRecord,
    Limits,
    Outcome,
    PromptReading,
    Quotas,
    Revision,
    Sampler,
    ServedBy,
    ServerInfo,
    Timings,
    Usage,
    User,
    UserGeneration,
    UserState,
)
from papa_serving.contracts.errors import InvalidRequest, Violation
from papa_serving.stubs.serving.v1 import dead_letter_pb2, feedback_pb2, generation_pb2, info_pb2, types_pb2, user_pb2

GenerateRequest = TypeVar("GenerateRequest", generation_pb2.GenerateRequest, generation_pb2.StreamGenerateRequest)

Request = TypeVar("Request", bound=Message)

_SAMPLERS = {
    Sampler.DDPM: generation_pb2.SAMPLER_DDPM,
    Sampler.DDIM: generation_pb2.SAMPLER_DDIM,
    Sampler.DPMPP_2M: generation_pb2.SAMPLER_DPMPP_2M,
}
_FORMATS = {
    ImageFormat.PNG: generation_pb2.IMAGE_FORMAT_PNG,
    ImageFormat.WEBP: generation_pb2.IMAGE_FORMAT_WEBP,
    ImageFormat.JPEG: generation_pb2.IMAGE_FORMAT_JPEG,
}


def get_item_request(user: types_pb2.User, item_id: str, image: ImageOptions | None) -> generation_pb2.GetItemRequest:
    """Raises InvalidRequest for what no message can hold."""
    message = request(generation_pb2.GetItemRequest, user, item_id=item_id)
    if image is not None:
        try:
            message.image.CopyFrom(image_options(image))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InvalidRequest([Violation("image", _why("image", image, error))]) from error
    return message


def image_options(image: ImageOptions) -> generation_pb2.ImageOptions:
    """Raises AttributeError, KeyError, TypeError or ValueError for what no message can hold."""
    return generation_pb2.ImageOptions(format=_FORMATS[image.format], max_edge=image.max_edge, quality=image.quality)


_READERS: dict[str, Callable[[Any], Any]] = {"sampler": _SAMPLERS.__getitem__, "image": image_options}
_GIVE = {
    "sampler": "a Sampler",
    "image": "an ImageOptions with an ImageFormat and whole numbers of pixels and quality",
}
"""What an option must be that is not a plain value."""


def user_message(user: str | User, tenant: str) -> types_pb2.User:
    """`tenant` is the client's, used where the user names none. Raises InvalidRequest for what no message can hold."""
    named = user if isinstance(user, User) else User(user)
    message, violations = types_pb2.User(), []
    for field, value in (("user", named.user), ("tenant", named.tenant or tenant)):
        violations += _set(message, field, value, f"user.{field}")
    if violations:
        raise InvalidRequest(violations)
    return message


def generate_request(
    kind: type[GenerateRequest], user: types_pb2.User, count: int, options: GenerateOptions
) -> GenerateRequest:
    """Builds either request; both have the same fields. Raises InvalidRequest, which names each refused option."""
    fields: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    request, violations = kind(user=user), []
    asked: dict[str, Any] = {"count": count, **fields}
    for name, value in asked.items():
        try:
            field: dict[str, Any] = {name: _READERS[name](value) if name in _READERS else value}
            request.MergeFrom(kind(**field))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            violations.append(Violation(name, _why(name, value, error)))
    if violations:
        raise InvalidRequest(violations)
    return request


def _why(name: str, value: object, error: Exception) -> str:
    """Explains what is wrong with an option of `generate`."""
    known = GenerateOptions.__annotations__
    if name in known or name == "count":
        if name in _GIVE:
            return f"give {_GIVE[name]}, not {value!r}"
        return f"{value!r} is out of range or of another type ({error})"
    close = get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"
    return f"there is no such option; {hint}"


def event_message(event: FeedbackEvent, tenant: str) -> feedback_pb2.FeedbackEvent:
    """Raises InvalidRequest unless one of item_id, image and cancels is given, and for what no message can hold."""
    message, violations = feedback_pb2.FeedbackEvent(), []
    if sum(map(bool, (event.item_id, event.image, event.cancels, event.catalogue_item))) != 1:
        what = "name an item_id, a catalogue_item or an event to take back, or give an image: one of them"
        violations.append(Violation("target", what))
    try:
        message.user.CopyFrom(user_message(event.user, tenant))
    except InvalidRequest as refused:
        violations += refused.violations
    violations += _set(message, "event_id", event.event_id)
    violations += _set_label(message, event)
    violations += _set_attribution(message, event)
    if event.item_id:
        violations += _set(message, "item_id", event.item_id)
    if event.catalogue_item:
        violations += _set(message.catalogue_item, "item_id", event.catalogue_item, "catalogue_item.item_id")
        violations += _set(message.catalogue_item, "catalogue", event.catalogue, "catalogue_item.catalogue")
    if event.image:
        violations += _set(message.image, "data", event.image, "image.data")
        if event.prompt:
            violations += _set(message.image, "prompt", event.prompt, "image.prompt")
    if event.occurred_at is not None:
        try:
            message.occurred_at.FromDatetime(event.occurred_at.astimezone(UTC))
        except (AttributeError, TypeError, ValueError, OverflowError) as error:
            violations.append(Violation("occurred_at", f"give a datetime of the years 1 to 9999 ({error})"))
    if violations:
        raise InvalidRequest(violations)
    return message


def _set_label(message: feedback_pb2.FeedbackEvent, event: FeedbackEvent) -> list[Violation]:
    """Sets the type or the grade of an event, or the event that it takes back."""
    if event.cancels:  # a label beside it is sent as well: the service refuses it, where it would be lost here
        given = [name for name in ("cancels", "type", "grade") if getattr(event, name)]
        return [refused for name in given for refused in _set(message, name, getattr(event, name))]
    if not event.type:
        return _set(message, "grade", event.grade)
    if event.grade:
        return [Violation("grade", "does not go with a type, whose weight is the grade: give one of them")]
    return _set(message, "type", event.type)


def _set_attribution(message: feedback_pb2.FeedbackEvent, event: FeedbackEvent) -> list[Violation]:
    """Sets what led to an event, and the caller's notes."""
    violations: list[Violation] = []
    origins = [name for name in ("generation_id", "recommendation_id") if getattr(event, name)]
    if len(origins) > 1:
        violations.append(Violation(origins[1], "an event has one origin: name a generation or a recommendation"))
    for name in origins:
        violations += _set(message, name, getattr(event, name))
    try:
        message.MergeFrom(feedback_pb2.FeedbackEvent(metadata=event.metadata, tags=event.tags))
    except (AttributeError, TypeError, ValueError) as error:
        violations.append(Violation("metadata", f"give texts, and tags as a list of texts ({error})"))
    return violations


def list_users_request(tenant: str, page_size: int, token: str) -> user_pb2.ListUsersRequest:
    """Raises InvalidRequest for what no message can hold."""
    message, violations = user_pb2.ListUsersRequest(page_token=token), []
    for field, value in (("tenant", tenant), ("page_size", page_size)):
        violations += _set(message, field, value)
    if violations:
        raise InvalidRequest(violations)
    return message


def request(kind: type[Request], user: types_pb2.User, **fields: object) -> Request:
    """A request about a user. Raises InvalidRequest for what no message can hold."""
    message, violations = kind(), []
    message.user.CopyFrom(user)  # type: ignore[attr-defined]
    for field, value in fields.items():
        violations += _set(message, field, value)
    if violations:
        raise InvalidRequest(violations)
    return message


def _set(message: Message, field: str, value: object, path: str = "") -> list[Violation]:
    """Sets a field, or says why the message cannot hold the value: a number for a text, half a surrogate pair."""
    try:
        setattr(message, field, value)
    except (TypeError, ValueError) as error:
        return [Violation(path or field, f"cannot be sent: {error}")]
    return []


def outcome(message: feedback_pb2.FeedbackOutcome) -> Outcome:
    """One acknowledgement or error."""
    if message.HasField("error"):
        return Outcome(message.event_id, error=error_of_outcome(message.error))
    ack = message.ack
    return Outcome(message.event_id, sequence=ack.sequence, duplicate=ack.duplicate, item_gone=ack.item_gone)


def served_by(value: generation_pb2.ServedBy.ValueType) -> ServedBy:
    """The weights that made an item. A gateway never sends the zero value."""
    return ServedBy.ADAPTER if value == generation_pb2.SERVED_BY_ADAPTER else ServedBy.BASE


def item(message: generation_pb2.Item) -> Item:
    """One finished item."""
    return Item(
        item_id=message.item_id,
        image=message.image,
        content_type=message.content_type,
        seed=message.seed,
        index=message.index,
        served_by=served_by(message.served_by),
        like_probability=message.like_probability if message.HasField("like_probability") else None,
        exploring=message.exploring,
    )


def user_generation(user: str | User, message: generation_pb2.GenerateManyResponse, request_id: str) -> UserGeneration:
    """The result for one user."""
    if message.HasField("error"):
        error = error_of_outcome(message.error)
        error.metadata = {"request_id": request_id, **error.metadata}
        return UserGeneration(user, error=error)
    return UserGeneration(user, replace(generation(message.generation), request_id=request_id))


def item_record(message: generation_pb2.GetItemResponse) -> ItemRecord:
    """A kept item."""
    return ItemRecord(
        item(message.item),
        message.generation_id,
        message.revision,
        message.prompt,
        dict(message.metadata),
        tuple(message.tags),
    )


def timings(message: generation_pb2.Timings) -> Timings:
    """Seconds."""
    return Timings(
        queued=message.queued_seconds,
        denoising=message.denoising_seconds,
        adapter_load=message.adapter_load_seconds,
        total=message.total_seconds,
    )


def generation(message: generation_pb2.GenerateResponse) -> Generation:
    """All items of one answer."""
    return Generation(
        generation_id=message.generation_id,
        items=tuple(item(each) for each in message.items),
        revision=message.revision,
        served_by=served_by(message.served_by),
        timings=timings(message.timings),
        prompt_reading=prompt_reading(message),
        noise_version=message.noise_version or 1,
        acceptance=acceptance(message),
        drawn=message.drawn,
        arms=dict(message.arms),
    )


def acceptance(message: generation_pb2.GenerateResponse | generation_pb2.StreamGenerateResponse) -> float:
    """The share of the draws that were accepted; 1 from a server that selects nothing."""
    return message.acceptance if message.drawn else 1.0


def prompt_reading(
    message: generation_pb2.GenerateResponse | generation_pb2.StreamGenerateResponse,
) -> PromptReading | None:
    """How a prompt was read; None where it was taken word for word."""
    if not message.HasField("prompt_reading"):
        return None
    reading = message.prompt_reading
    return PromptReading(reading.prompt, dict(reading.read_as), tuple(reading.unknown_words))


def server_info(message: info_pb2.GetServerInfoResponse) -> ServerInfo:
    """A deployment."""
    backbone = message.backbone
    return ServerInfo(
        version=message.version,
        limits=Limits(**{name: getattr(message.limits, name) for name in Limits.__dataclass_fields__}),
        backbone_name=backbone.name,
        backbone_hash=backbone.backbone_hash,
        image_shape=(backbone.channels, backbone.height, backbone.width),
        takes_prompt=backbone.takes_prompt,
        vocabulary=tuple(backbone.vocabulary),
        overdraw=message.defaults.overdraw or 1.0,
        quotas=Quotas(**{name: getattr(message.quotas, name) for name in Quotas.__dataclass_fields__}),
        event_weights=dict(message.event_weights),
    )


def _time(message: timestamp_pb2.Timestamp) -> datetime:
    return message.ToDatetime(UTC)


def dead_letter(message: dead_letter_pb2.DeadLetter) -> DeadLetter:
    """One letter."""
    return DeadLetter(
        letter_id=message.letter_id,
        user=message.user.user,
        tenant=message.user.tenant,
        event_id=message.event_id,
        sequence=message.sequence,
        grade=message.grade,
        revision=message.revision,
        accepted_at=_time(message.accepted_at),
        died_at=_time(message.died_at),
        attempts=message.attempts,
        reason=message.reason,
    )


def revision(message: user_pb2.Revision) -> Revision:
    """One record of a lineage."""
    return Revision(
        name=message.revision,
        parent=message.parent,
        created_at=_time(message.created_at),
        events_applied=message.events_applied,
        events_total=message.events_total,
        sha256=message.sha256,
    )


def user_state(message: user_pb2.UserState) -> UserState:
    """A user at one moment."""
    return UserState(
        user=message.user.user,
        tenant=message.user.tenant,
        likes=message.likes,
        dislikes=message.dislikes,
        pending_events=message.pending_events,
        dead_letters=message.dead_letters,
        current_revision=revision(message.current_revision) if message.HasField("current_revision") else None,
    )


def user_with_usage(message: user_pb2.GetUserResponse) -> UserState:
    """A user at one moment, and what they have of the quotas."""
    known = message.HasField("usage")
    usage = Usage(**{name: getattr(message.usage, name) for name in Usage.__dataclass_fields__}) if known else None
    return replace(user_state(message.state), usage=usage)


def receipt(message: user_pb2.DeleteUserResponse) -> DeletionReceipt:
    """The receipt of a deletion."""
    return DeletionReceipt(
        receipt_id=message.receipt_id,
        deleted_at=_time(message.deleted_at),
        events=message.events,
        dead_letters=message.dead_letters,
        items=message.items,
        revisions=message.revisions,
        remains=message.remains,
    )
