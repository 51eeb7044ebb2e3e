"""Splits feedback into calls within a deployment's limits on bytes and events."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from papa_serving.client.records import Limits
from papa_serving.contracts.errors import InvalidRequest, Violation
from papa_serving.stubs.serving.v1 import feedback_pb2

SMALL_BYTES, SMALL_EVENTS = 2**20, 256
"""A batch within both bounds is sent without asking for the limits of the deployment."""

FRAME_BYTES = 16
"""The most that one event adds to a message beside its own bytes: a tag and a length."""


def is_small(events: Sequence[feedback_pb2.FeedbackEvent]) -> bool:
    """Whether every deployment accepts the batch in one call."""
    return len(events) <= SMALL_EVENTS and _size(events) <= SMALL_BYTES


def split(
    events: Sequence[feedback_pb2.FeedbackEvent], limits: Limits
) -> Iterator[Sequence[feedback_pb2.FeedbackEvent]]:
    """Yields consecutive parts of the batch, each as long as the limits allow. An empty batch gives one empty part.

    Raises InvalidRequest before the first part if a single event is too large.
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
    """Returns the event, without picture and prompt if it is too large for any message.

    The gateway then refuses it as malformed when its turn comes, and the stream continues.
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
