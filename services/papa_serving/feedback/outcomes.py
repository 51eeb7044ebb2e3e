"""What may become of one appended event, as append.lua numbers it, and the error that says so."""

from __future__ import annotations

from papa_serving.contracts.errors import BacklogFull, EventIdReused, ItemNotFound, PapaError
from papa_serving.store.records import user_deleted

ACCEPTED, DUPLICATE, NO_ITEM, DELETED, FULL, REUSED = range(6)

BACKLOG_RETRY_AFTER = 2.0
"""Seconds: about what a trainer needs for one update."""


def refusal(code: int) -> PapaError:
    """The error for a code other than ACCEPTED and DUPLICATE."""
    if code == NO_ITEM:
        return ItemNotFound("no such item: never made for this user, or past its time to live", field="item_id")
    if code == DELETED:
        return user_deleted()
    if code == FULL:
        return BacklogFull(
            "too much feedback of this user's partition waits to be applied", retry_after=BACKLOG_RETRY_AFTER
        )
    return EventIdReused("this event_id was accepted before with another target or rating", field="event_id")
