"""Waiting for learning: which state of a user ends the wait."""

from __future__ import annotations

from dataclasses import dataclass

from papa_serving.client.records import Revision, UserState


@dataclass(frozen=True)
class RevisionAwaited:
    """A revision newer than `after`; with `settled` also no pending event. Revision names sort by age."""

    after: str
    settled: bool

    def found_in(self, state: UserState) -> Revision | None:
        """The current revision, once the wait is over."""
        current = state.current_revision
        if current is None or current.revision <= self.after or (self.settled and state.pending_events):
            return None
        return current
