"""The W3C trace context of a call, handed on with whatever the call causes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextvars import ContextVar

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")

traceparent: ContextVar[str] = ContextVar("traceparent", default="")
"""Set by the edge; "" where the caller traces nothing."""


def read_traceparent(metadata: Mapping[str, str]) -> str:
    """The header of that name when it is well formed, else ""."""
    header = metadata.get("traceparent", "")
    return header if _TRACEPARENT.fullmatch(header) else ""
