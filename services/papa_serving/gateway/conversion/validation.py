"""Every constraint that the protos' comments declare. Each violation names the path of its field.

The functions append to `violations` instead of raising, so that a caller learns of all mistakes at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from papa_serving.contracts.attribution import EVENT_WEIGHTS, Notes
from papa_serving.contracts.errors import InvalidRequest, Violation
from papa_serving.contracts.feedback import MERGED
from papa_serving.contracts.identity import ID_RULE, is_id_text
from papa_serving.contracts.limits import (
    ADAPTER_FILES,
    MAX_EDGE,
    MAX_GENERATIONS,
    MAX_GUIDANCE,
    MAX_ID,
    MAX_NOTE_KEY,
    MAX_NOTE_VALUE,
    MAX_NOTES,
    MAX_NOTES_SIZE,
    MAX_OVERDRAW,
    MAX_PROMPT,
    MAX_QUALITY,
    MAX_SEED,
)
from papa_serving.settings import GatewaySettings
from papa_serving.stubs.serving.v1 import feedback_pb2, generation_pb2, types_pb2, user_pb2

MAX_PAGE = 1_000
MIN_GRADE = 0.001
"""The smallest grade in absolute value; the trainer computes in float32, where far smaller ones vanish."""
# google.protobuf.Timestamp: 0001-01-01 to 9999-12-31.
FIRST_SECOND, LAST_SECOND = -62_135_596_800, 253_402_300_799

Violations = list[Violation]
GenerateRequest = generation_pb2.GenerateRequest | generation_pb2.StreamGenerateRequest
_SIGNALS = (feedback_pb2.SIGNAL_LIKE, feedback_pb2.SIGNAL_DISLIKE)


def refuse(violations: Violations) -> None:
    """Raises InvalidRequest when there are violations."""
    if violations:
        raise InvalidRequest(violations)


def check_user(user: types_pb2.User, path: str, violations: Violations) -> None:
    """Both are ids; a tenant may be empty."""
    check_id(user.user, f"{path}.user", violations)
    if user.tenant:
        check_id(user.tenant, f"{path}.tenant", violations)


def check_id(text: str, path: str, violations: Violations) -> None:
    """The one rule for ids: 1 to MAX_ID characters, of those that papa_serving.contracts.identity allows."""
    if not 1 <= len(text) <= MAX_ID or not is_id_text(text):
        violations.append(Violation(path, f"must be 1 to {MAX_ID} characters: {ID_RULE}"))


def check_generation(request: GenerateRequest, limits: GatewaySettings, violations: Violations) -> None:
    """Checks GenerateRequest and StreamGenerateRequest."""
    check_user(request.user, "user", violations)
    if not 1 <= request.count <= limits.max_count:
        violations.append(Violation("count", f"must be 1 to {limits.max_count}"))
    if len(request.prompt) > MAX_PROMPT:
        violations.append(Violation("prompt", f"must be at most {MAX_PROMPT} characters"))
    _check_guidance(request, violations)
    if request.HasField("seed") and request.seed > MAX_SEED:
        violations.append(Violation("seed", "must be below 2^63"))
    if request.sampler not in generation_pb2.Sampler.values():
        violations.append(Violation("sampler", "must be one of the samplers, or unspecified"))
    if request.HasField("steps") and not 1 <= request.steps <= limits.max_steps:
        violations.append(Violation("steps", f"must be 1 to {limits.max_steps}"))
    if request.revision:
        check_id(request.revision, "revision", violations)
    if request.HasField("exploration") and not 0.0 <= request.exploration <= 1.0:
        violations.append(Violation("exploration", "must be in [0, 1]"))
    if not 0.0 <= request.min_like_probability <= 1.0:
        violations.append(Violation("min_like_probability", "must be in [0, 1]"))
    if request.HasField("overdraw") and not 1.0 <= request.overdraw <= MAX_OVERDRAW:
        violations.append(Violation("overdraw", f"must be in [1, {MAX_OVERDRAW:g}]"))
    check_image_options(request.image, violations)
    check_notes(request.metadata, request.tags, "", violations)


def check_notes(metadata: Mapping[str, str], tags: Sequence[str], path: str, violations: Violations) -> None:
    """Checks the caller's notes on a generation or on an event; `path` is "" or ends with a dot."""
    what, before = f"must be 1 to {MAX_NOTE_KEY} characters: {ID_RULE}", len(violations)
    if len(metadata) > MAX_NOTES:
        violations.append(Violation(f"{path}metadata", f"must have at most {MAX_NOTES} entries"))
    elif not all(map(_is_note, metadata)):
        violations.append(Violation(f"{path}metadata", f"each key {what}"))
    elif any(len(value) > MAX_NOTE_VALUE for value in metadata.values()):
        violations.append(Violation(f"{path}metadata", f"each value must be at most {MAX_NOTE_VALUE} characters"))
    if len(tags) > MAX_NOTES:
        violations.append(Violation(f"{path}tags", f"must be at most {MAX_NOTES}"))
    elif not all(map(_is_note, tags)):
        violations.append(Violation(f"{path}tags", f"each {what}"))
    if len(violations) > before:
        return
    size = len(Notes(dict(metadata), tuple(tags)).encode())
    if size > MAX_NOTES_SIZE:
        field = "metadata" if metadata else "tags"
        many = f"makes {size} bytes of JSON with the tags; both together must be at most {MAX_NOTES_SIZE}"
        violations.append(Violation(f"{path}{field}", many))


def _is_note(text: str) -> bool:
    return 1 <= len(text) <= MAX_NOTE_KEY and is_id_text(text)


def check_many(request: generation_pb2.GenerateManyRequest) -> None:
    """Checks the number of requests. Raises at once: each is checked by itself when its turn comes."""
    if not 1 <= len(request.requests) <= MAX_GENERATIONS:
        raise InvalidRequest([Violation("requests", f"must be 1 to {MAX_GENERATIONS} requests")])


def check_get_item(request: generation_pb2.GetItemRequest, violations: Violations) -> None:
    """Checks GetItemRequest."""
    check_user(request.user, "user", violations)
    check_id(request.item_id, "item_id", violations)
    check_image_options(request.image, violations)


def check_image_options(image: generation_pb2.ImageOptions, violations: Violations) -> None:
    """Checks the field `image` of a request."""
    if image.format not in generation_pb2.ImageFormat.values():
        violations.append(Violation("image.format", "must be PNG, WEBP or JPEG, or unspecified"))
    if image.HasField("max_edge") and not 1 <= image.max_edge <= MAX_EDGE:
        violations.append(Violation("image.max_edge", f"must be 1 to {MAX_EDGE}"))
    if image.HasField("quality"):
        if image.format in (generation_pb2.IMAGE_FORMAT_UNSPECIFIED, generation_pb2.IMAGE_FORMAT_PNG):
            violations.append(Violation("image.quality", "does not go with PNG, which is lossless"))
        elif not 1 <= image.quality <= MAX_QUALITY:
            violations.append(Violation("image.quality", f"must be 1 to {MAX_QUALITY}"))


def _check_guidance(request: GenerateRequest, violations: Violations) -> None:
    # Written so that a NaN is refused as well.
    if request.HasField("guidance_scale") and not 1.0 <= request.guidance_scale <= MAX_GUIDANCE:
        violations.append(Violation("guidance_scale", f"must be in [1, {MAX_GUIDANCE:g}]"))
    if len(request.negative_prompt) > MAX_PROMPT:
        violations.append(Violation("negative_prompt", f"must be at most {MAX_PROMPT} characters"))
    elif request.negative_prompt and not request.prompt:
        violations.append(Violation("negative_prompt", "needs a prompt"))


def check_batch(request: feedback_pb2.SubmitFeedbackRequest, limits: GatewaySettings) -> None:
    """Checks the number of events. Raises at once: the events of an oversized batch are not read."""
    if not 1 <= len(request.events) <= limits.max_events:
        raise InvalidRequest([Violation("events", f"must be 1 to {limits.max_events} events")])


def check_event(event: feedback_pb2.FeedbackEvent, path: str, limits: GatewaySettings, violations: Violations) -> None:
    """Checks one feedback event; `path` is "" or ends with a dot. The decoder checks the bytes of an image."""
    check_id(event.event_id, f"{path}event_id", violations)
    if event.event_id.startswith(MERGED):
        violations.append(Violation(f"{path}event_id", f"must not begin with {MERGED}, as the ids of merged labels do"))
    check_user(event.user, f"{path}user", violations)
    _check_target(event, path, limits, violations)
    _check_label(event, path, violations)
    if origin := event.WhichOneof("origin"):
        check_id(getattr(event, origin), f"{path}{origin}", violations)
    check_notes(event.metadata, event.tags, path, violations)
    if event.HasField("occurred_at"):
        at = event.occurred_at
        if not FIRST_SECOND <= at.seconds <= LAST_SECOND or not 0 <= at.nanos < 1_000_000_000:
            violations.append(Violation(f"{path}occurred_at", "is not a valid timestamp"))


def _check_target(
    event: feedback_pb2.FeedbackEvent, path: str, limits: GatewaySettings, violations: Violations
) -> None:
    match event.WhichOneof("target"):
        case "item_id":
            check_id(event.item_id, f"{path}item_id", violations)
        case "cancels":
            check_id(event.cancels, f"{path}cancels", violations)
        case "catalogue_item":
            check_id(event.catalogue_item.item_id, f"{path}catalogue_item.item_id", violations)
            if event.catalogue_item.catalogue:
                check_id(event.catalogue_item.catalogue, f"{path}catalogue_item.catalogue", violations)
        case "image":
            if not 1 <= len(event.image.data) <= limits.max_image_bytes:
                violations.append(Violation(f"{path}image.data", f"must be 1 to {limits.max_image_bytes} bytes"))
            if len(event.image.prompt) > MAX_PROMPT:
                violations.append(Violation(f"{path}image.prompt", f"must be at most {MAX_PROMPT} characters"))
        case _:
            violations.append(
                Violation(
                    f"{path}target", "name an item_id, a catalogue_item or an event to take back, or give an image"
                )
            )


def _check_label(event: feedback_pb2.FeedbackEvent, path: str, violations: Violations) -> None:
    if event.WhichOneof("target") == "cancels":
        if event.WhichOneof("label"):
            violations.append(Violation(f"{path}label", "does not go with cancels: to change a label, rate again"))
        if event.type:
            violations.append(Violation(f"{path}type", "does not go with cancels: what is taken back has its type"))
        return
    if event.type:
        if event.type not in EVENT_WEIGHTS:
            violations.append(Violation(f"{path}type", f"must be one of {', '.join(EVENT_WEIGHTS)}"))
        if label := event.WhichOneof("label"):
            violations.append(
                Violation(f"{path}{label}", "does not go with a type, whose weight is the grade: give one of them")
            )
        return
    match event.WhichOneof("label"):
        case "signal":
            if event.signal not in _SIGNALS:
                violations.append(Violation(f"{path}signal", "must be SIGNAL_LIKE or SIGNAL_DISLIKE"))
        case "grade":
            # Written so that a NaN is refused as well.
            if not MIN_GRADE <= abs(event.grade) <= 1.0:
                violations.append(Violation(f"{path}grade", f"must be in [-1, 1], and at least {MIN_GRADE} from 0"))
        case _:
            violations.append(Violation(f"{path}label", "give a signal, a grade or a type"))


def check_users_page(request: user_pb2.ListUsersRequest, violations: Violations) -> None:
    """Checks ListUsersRequest but for the content of its token."""
    if request.tenant:
        check_id(request.tenant, "tenant", violations)
    if request.page_size > MAX_PAGE:
        violations.append(Violation("page_size", f"must be at most {MAX_PAGE}"))


def check_page(request: user_pb2.ListRevisionsRequest, violations: Violations) -> None:
    """Checks ListRevisionsRequest without its user."""
    if request.page_size > MAX_PAGE:
        violations.append(Violation("page_size", f"must be at most {MAX_PAGE}"))
    if len(request.page_token) > MAX_ID:
        violations.append(Violation("page_token", "is not a token of this service"))


def check_revision(revision: str, violations: Violations) -> None:
    """Checks the name of a revision that must be given."""
    check_id(revision, "revision", violations)


def check_import(request: user_pb2.ImportAdapterRequest, violations: Violations) -> None:
    """Checks ImportAdapterRequest without its user: the set of files, and the sha256 of each."""
    if not 1 <= len(request.backbone) <= MAX_ID:
        violations.append(Violation("backbone", f"must be 1 to {MAX_ID} characters"))
    names = [file.name for file in request.files]
    if not set(ADAPTER_FILES[:2]) <= set(names) or len(set(names)) < len(names):
        violations.append(Violation("files", f"must hold {' and '.join(ADAPTER_FILES[:2])}, and each file once"))
    for index, file in enumerate(request.files[: len(ADAPTER_FILES)]):
        if file.name not in ADAPTER_FILES:
            violations.append(Violation(f"files[{index}].name", f"must be one of {', '.join(ADAPTER_FILES)}"))
        elif hashlib.sha256(file.data).hexdigest() != file.sha256:
            violations.append(Violation(f"files[{index}].sha256", "is not that of the data"))
    if len(names) > len(ADAPTER_FILES):
        violations.append(Violation("files", f"must be at most {len(ADAPTER_FILES)}"))
