"""Users and revisions as the public contract shows them."""

from __future__ import annotations

from google.protobuf import timestamp_pb2

from papa_serving.contracts.revisions import Revision, UserState
from papa_serving.stubs.serving.v1 import types_pb2, user_pb2


def state_to_wire(state: UserState) -> user_pb2.UserState:
    """A user at one moment."""
    return user_pb2.UserState(
        user=types_pb2.User(tenant=state.user.tenant, user=state.user.user),
        likes=state.likes,
        dislikes=state.dislikes,
        pending_events=state.pending,
        dead_letters=state.dead_letters,
        current_revision=None if state.current is None else revision_to_wire(state.current),
    )


def revision_to_wire(revision: Revision) -> user_pb2.Revision:
    """One revision."""
    return user_pb2.Revision(
        revision=revision.revision,
        parent=revision.parent,
        created_at=timestamp(revision.created_at),
        events_applied=revision.events_applied,
        events_total=revision.events_total,
        sha256=revision.sha256,
    )


def timestamp(seconds: float) -> timestamp_pb2.Timestamp:
    """From seconds since the epoch."""
    stamp = timestamp_pb2.Timestamp()
    stamp.FromNanoseconds(round(seconds * 1e9))
    return stamp
