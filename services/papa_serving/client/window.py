"""Tracks the events in flight of a feedback stream: what was sent and what must be sent again.

It is pure bookkeeping; the streams add the waiting.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import grpc

from papa_serving.client import wire
from papa_serving.client.errors import CallFailed
from papa_serving.client.records import Outcome
from papa_serving.contracts.errors import InvalidRequest
from papa_serving.stubs.serving.v1 import feedback_pb2


@dataclass(frozen=True)
class Sending:
    """An event of a stream. If the client cannot send it, `refused` says why, and an empty message goes in its place:
    the gateway refuses that in its turn, so the outcomes stay in the order of the events.
    """

    event_id: str
    message: feedback_pb2.FeedbackEvent
    refused: InvalidRequest | None = None

    def outcome(self, answer: feedback_pb2.FeedbackOutcome) -> Outcome:
        """The outcome of the caller's event."""
        return Outcome(self.event_id, error=self.refused) if self.refused else wire.outcome(answer)


class Window:
    """Holds at most `size` events without an outcome. The first `_sent` of them were sent on this connection."""

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ValueError("window must be at least 1")
        self._size = size
        self._unanswered: deque[Sending] = deque()
        self._sent = 0
        self.exhausted = False

    @property
    def may_read(self) -> bool:
        """Whether there is room for a further event and the source may have one."""
        return not self.exhausted and len(self._unanswered) < self._size

    @property
    def finished(self) -> bool:
        """Whether the source has ended and every event is answered."""
        return self.exhausted and not self._unanswered

    @property
    def unsent(self) -> bool:
        """Whether events wait to be sent on this connection."""
        return self._sent < len(self._unanswered)

    def add(self, event: Sending) -> None:
        """Adds the source's next event."""
        self._unanswered.append(event)

    def next_request(self) -> feedback_pb2.StreamFeedbackRequest | None:
        """The next event to send on this connection, if one is waiting."""
        if not self.unsent:
            return None
        self._sent += 1
        return feedback_pb2.StreamFeedbackRequest(event=self._unanswered[self._sent - 1].message)

    def answered(self, outcome: feedback_pb2.FeedbackOutcome) -> Sending:
        """Removes the oldest event and returns it. Raises CallFailed when the outcome is of another event."""
        if not self._sent or self._unanswered[0].message.event_id != outcome.event_id:
            raise CallFailed(grpc.StatusCode.INTERNAL, "the gateway answered an event out of order")
        self._sent -= 1
        return self._unanswered.popleft()

    def reconnect(self) -> None:
        """Marks all unanswered events to be sent again."""
        self._sent = 0
