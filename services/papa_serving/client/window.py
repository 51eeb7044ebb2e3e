"""Tracks the events in flight of a feedback stream: what was sent and what must be sent again.

It is pure bookkeeping; the streams add the waiting.
"""

from __future__ import annotations

from collections import deque

import grpc

from papa_serving.client.errors import CallFailed
from papa_serving.stubs.serving.v1 import feedback_pb2


class Window:
    """Holds at most `size` events without an outcome. The first `_sent` of them were sent on this connection."""

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ValueError("window must be at least 1")
        self._size = size
        self._unanswered: deque[feedback_pb2.FeedbackEvent] = deque()
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

    def add(self, event: feedback_pb2.FeedbackEvent) -> None:
        """Adds the source's next event."""
        self._unanswered.append(event)

    def next_request(self) -> feedback_pb2.StreamFeedbackRequest | None:
        """The next event to send on this connection, if one is waiting."""
        if not self.unsent:
            return None
        self._sent += 1
        return feedback_pb2.StreamFeedbackRequest(event=self._unanswered[self._sent - 1])

    def answered(self, outcome: feedback_pb2.FeedbackOutcome) -> None:
        """Removes the oldest event. Raises CallFailed when the outcome is of another event."""
        if not self._sent or self._unanswered[0].event_id != outcome.event_id:
            raise CallFailed(grpc.StatusCode.INTERNAL, "the gateway answered an event out of order")
        self._unanswered.popleft()
        self._sent -= 1

    def reconnect(self) -> None:
        """Marks all unanswered events to be sent again."""
        self._sent = 0
