"""The W3C trace context between rooms: one line of text, or ""."""

from __future__ import annotations

import re

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def checked(traceparent: str) -> str:
    """Returns the header if it is well formed (https://www.w3.org/TR/trace-context/), else ""."""
    return traceparent if _TRACEPARENT.fullmatch(traceparent) else ""


def ids(traceparent: str) -> tuple[str, str]:
    """Trace id and span id of a checked traceparent."""
    return traceparent[3:35], traceparent[36:52]


def flags(traceparent: str) -> int:
    """The flags of a checked traceparent. Bit 0 means that its writer recorded its part."""
    return int(traceparent[53:], 16)
