"""Feedback cut into calls that a deployment takes, by its limits on bytes and on events."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from papa_serving.client.records import Limits
from papa_serving.contracts.errors import InvalidRequest, Violation
from papa_serving.stubs.serving.v1 import feedback_pb2

SMALL_BYTES, SMALL_EVENTS = 2**20, 256
"""A batch within both goes out as it is; a larger one is worth asking the deployment for its limits."""

FRAME_BYTES = 16
"""What one event adds to a message beside its own bytes, at most: a tag and a length."""


def is_small(events: Sequence[feedback_pb2.FeedbackEvent]) -> bool:
    """Whether any deployment takes the batch in one call."""
    return len(events) <= SMALL_EVENTS and _size(events) <= SMALL_BYTES


def split(
    events: Sequence[feedback_pb2.FeedbackEvent], limits: Limits
) -> Iterator[Sequence[feedback_pb2.FeedbackEvent]]:
    """Consecutive parts of the batch, each as long as the limits allow; one empty part of an empty batch.

    Raises InvalidRequest before the first part where an event is too large by itself.
    """
    _refuse_oversize(events, limits)
    first, size = 0, 0
    for index, event in enumerate(events):
        own = event.ByteSize() + FRAME_BYTES
        if index > first and (size + own > limits.max_message_bytes or index - first >= limits.max_events):
            yield events[first:index]
            first, size = index, 0
        size += own
    yield events[first:]


def without_excess(event: feedback_pb2.FeedbackEvent, limits: Limits) -> feedback_pb2.FeedbackEvent:
    """The event as a stream may carry it: one too large for any message goes without its picture and prompt.

    The gateway then refuses it in its turn as the malformed event that it is, and the stream goes on.
    """
    if event.ByteSize() + FRAME_BYTES > limits.max_message_bytes:
        event.image.Clear()
        event.image.SetInParent()
    return event


def _size(events: Sequence[feedback_pb2.FeedbackEvent]) -> int:
    return sum(event.ByteSize() + FRAME_BYTES for event in events)


def _refuse_oversize(events: Sequence[feedback_pb2.FeedbackEvent], limits: Limits) -> None:
    violations = [
        Violation(f"events[{index}].image.data", f"must be 1 to {limits.max_image_bytes} bytes")
        for index, event in enumerate(events)
        if len(event.image.data) > limits.max_image_bytes
    ]
    if not violations:
        violations = [
            Violation(f"events[{index}]", f"must be at most {limits.max_message_bytes} bytes")
            for index, event in enumerate(events)
            if event.ByteSize() + FRAME_BYTES > limits.max_message_bytes
        ]
    if violations:
        raise InvalidRequest(violations)
