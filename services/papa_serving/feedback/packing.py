"""How the events of one user travel to append.lua: one string, since a script pays for every argument.

Each event: a head of 28 bytes, big-endian (length of the event id, of the sample, of the traceparent, 4 bytes each; 8
bytes digest of what the event says; the grade as a double), then event id, sample and traceparent. The sample is empty
when the event names an item.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable

from papa_serving.contracts.feedback import FeedbackEvent

_HEAD = struct.Struct(">III8sd")


def said(event: FeedbackEvent) -> bytes:
    """8 bytes by which a retry is told from another opinion under the same event id."""
    text = f"{float(event.grade)!r} {event.item_id} ".encode() + event.image
    return hashlib.blake2b(text, digest_size=8).digest()


def pack_events(events: Iterable[FeedbackEvent]) -> bytes:
    """All of them, one behind the other."""
    parts: list[bytes] = []
    for event in events:
        event_id, trace = event.event_id.encode(), event.traceparent.encode()
        sample = b"" if event.item_id else event.image
        parts += (_HEAD.pack(len(event_id), len(sample), len(trace), said(event), event.grade), event_id, sample, trace)
    return b"".join(parts)
