"""The fields of an event in a stream, and their way back.

    t, u   tenant, user        e   event id       g   grade      n   sequence
    s      packed sample       r   revision       c   traceparent, "" or absent without
A dead letter has three more: entry (the id it had as an event), reason, attempts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from papa_serving.contracts.feedback import DeadLetter, LoggedEvent
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.trace import checked

_ENTRY_ID = re.compile(r"\d{1,19}-\d{1,19}", re.ASCII)


def is_entry_id(text: str) -> bool:
    """Whether it has the form that Redis gives."""
    return _ENTRY_ID.fullmatch(text) is not None


def order(entry_id: str) -> tuple[int, int]:
    """What entry ids are sorted by: milliseconds, then a counter."""
    first, _, second = entry_id.partition("-")
    return int(first), int(second)


def milliseconds(entry_id: str) -> int:
    """When Redis accepted an entry."""
    return order(entry_id)[0]


def decode_event(entry_id: bytes, values: Mapping[bytes, bytes], attempts: int) -> LoggedEvent:
    """One entry of an events stream."""
    return _event(entry_id.decode(), values, attempts)


def decode_letter(partition: int, letter_id: bytes, values: Mapping[bytes, bytes]) -> DeadLetter:
    """One entry of a dead stream."""
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
    )
