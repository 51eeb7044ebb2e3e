"""The encoding of events for Redis: packed for append.lua, as fields of a stream's entry, and as outcome codes.

append.lua takes the events of one user as one string, because every argument of a script costs time. Each event has a
head of 33 bytes, big-endian: the lengths of event id, sample, traceparent and note (4 bytes each), an 8-byte digest of
what the event says, the grade as a double, and 1 where it may do without its item, else 0.
Event id, sample, traceparent and note follow. The sample is empty when
the event names an item, also one of a catalogue that has no picture to learn from. An event that takes another back has
the grade 0 and the other's id as its sample; one that is no label has the grade 0 and no sample. The note is what is
kept of the event for attribution (`note`), empty for a bare label.

Fields of an entry:
    t, u   tenant, user        e   event id       g   grade      n   sequence
    s      packed sample       r   revision       c   traceparent, "" or absent without
    k   sequence of the event that this one takes back, absent for a label
A dead letter has three more: entry (the id it had as an event), reason, attempts.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections.abc import Iterable, Mapping
from typing import Any

from papa_serving.contracts.attribution import to_json
from papa_serving.contracts.errors import (
    BacklogFull,
    EventIdReused,
    EventNotFound,
    ItemNotFound,
    PapaError,
    UserBacklogFull,
)
from papa_serving.contracts.feedback import MERGED, DeadLetter, FeedbackEvent, LoggedEvent
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.trace import checked
from papa_serving.store.records import user_deleted

_HEAD = struct.Struct(">IIII8sdB")
_ENTRY_ID = re.compile(r"\d{1,19}-\d{1,19}", re.ASCII)

ACCEPTED, DUPLICATE, NO_ITEM, DELETED, FULL, REUSED, USER_FULL, NO_EVENT, NOTED, NOTED_BEFORE = range(10)
"""The outcomes of one appended event, as append.lua numbers them."""

MERGED_ID = re.compile(rf"{MERGED}([0-9a-f]+)/([0-9]+)")
"""The event id of a label that a merge brings: the name of the merge, and the label's sequence of the guest's."""

MERGES = 16
"""How many of the newest merges into a user are remembered, each with the last sequence that it brought."""

BACKLOG_RETRY_AFTER = 2.0
"""Seconds after which a refused caller may retry: about the time of one update."""


def digest(event: FeedbackEvent) -> bytes:
    """An 8-byte digest of what an event says. A retry has the same digest; another label under the same id has not.

    A type stands for its weight, which may be another when a retry comes. At the weight 0 no picture is decoded: a
    typed event is therefore known by the picture as the caller sent it.
    """
    label = event.attribution.type or repr(float(event.grade))
    text = f"{label} {event.item_id} ".encode() + (event.picture or event.image)
    if event.catalogue_item:  # not the picture: the item may have another, or be gone, when a retry comes
        text = f"catalogue {json.dumps(event.catalogue_item)} {label}".encode()
    if event.cancels:
        text = f"cancels {event.cancels}".encode()
    return hashlib.blake2b(text, digest_size=8).digest()


def note(event: FeedbackEvent) -> bytes:
    """What is kept of an event for attribution, a JSON object; b"" for a bare label."""
    if not event.attribution and not event.cancels:
        return b""
    catalogue, item = event.catalogue_item or ("", "")
    given: dict[str, Any] = {
        "event_id": event.event_id,
        "cancels": event.cancels,
        "item_id": event.item_id,
        "catalogue": catalogue,
        "catalogue_item": item,
        "grade": event.grade,
        "occurred_at": event.occurred_at,
    }
    return to_json({name: value for name, value in given.items() if value} | event.attribution.fields())


def needs_item(event: FeedbackEvent) -> bool:
    """Whether append.lua looks up an item for the event. No item has an empty id: a catalogue's item without a picture
    is one that is not there."""
    return event.is_label and not event.image and not event.cancels


def does_without_item(event: FeedbackEvent) -> bool:
    """Whether the event is accepted as no label where its item is gone: what the user did is then kept all the same."""
    return bool(event.attribution.type) and isinstance(event.missing, ItemNotFound | None)


def pack_events(events: Iterable[FeedbackEvent]) -> bytes:
    """Concatenates the events in the form that append.lua reads."""
    parts: list[bytes] = []
    for event in events:
        sample = (
            event.cancels.encode() if event.cancels else b"" if event.item_id or not event.is_label else event.image
        )
        contents = (event.event_id.encode(), sample, event.traceparent.encode(), note(event))
        parts += (_HEAD.pack(*map(len, contents), digest(event), event.grade, does_without_item(event)), *contents)
    return b"".join(parts)


def refusal(code: int, event: FeedbackEvent) -> PapaError:
    """The error for an event whose code is other than ACCEPTED and DUPLICATE."""
    if code == NO_ITEM:
        return event.missing or ItemNotFound(
            "no such item: never made for this user, or past its time to live", field="item_id"
        )
    if code == DELETED:
        return user_deleted()
    if code == FULL:
        return BacklogFull(
            "too much feedback of this user's partition waits to be applied", retry_after=BACKLOG_RETRY_AFTER
        )
    if code == USER_FULL:
        return UserBacklogFull(
            "so much feedback of this user waits to be applied that no more of this user is accepted until some is",
            retry_after=BACKLOG_RETRY_AFTER,
        )
    if code == NO_EVENT:
        return EventNotFound(
            "no such event of this user: never accepted, or longer ago than ids are kept", field="cancels"
        )
    if code != REUSED:
        raise ValueError(f"an event cannot have ended as {code}")
    return EventIdReused("this event_id was accepted before with another target or label", field="event_id")


def is_entry_id(text: str) -> bool:
    """Whether the text has the form of a stream's entry id."""
    return _ENTRY_ID.fullmatch(text) is not None


def order(entry_id: str) -> tuple[int, int]:
    """The sort key of an entry id: milliseconds, then a counter."""
    first, _, second = entry_id.partition("-")
    return int(first), int(second)


def milliseconds(entry_id: str) -> int:
    """The time at which Redis accepted an entry."""
    return order(entry_id)[0]


def decode_event(entry_id: bytes, values: Mapping[bytes, bytes], attempts: int) -> LoggedEvent:
    """Decodes one entry of an events stream."""
    return _event(entry_id.decode(), values, attempts)


def decode_letter(partition: int, letter_id: bytes, values: Mapping[bytes, bytes]) -> DeadLetter:
    """Decodes one entry of a stream of dead letters."""
    letter = letter_id.decode()
    event = _event(values[b"entry"].decode(), values, int(values[b"attempts"]))
    return DeadLetter(letter, partition, event, values[b"reason"].decode(), milliseconds(letter) / 1000)


def _event(entry_id: str, values: Mapping[bytes, bytes], attempts: int) -> LoggedEvent:
    return LoggedEvent(
        entry_id=entry_id,
        sequence=int(values[b"n"]),
        event_id=values[b"e"].decode(),
        user=UserKey(values[b"t"].decode(), values[b"u"].decode()),
        grade=float(values[b"g"]),
        sample=values[b"s"],
        revision=values[b"r"].decode(),
        accepted_at=milliseconds(entry_id) / 1000,
        traceparent=checked(values.get(b"c", b"").decode("ascii", "replace")),
        attempts=attempts,
        cancels=int(values.get(b"k") or 0),
    )
