"""The caller's own trace, handed to the service where the caller keeps one with OpenTelemetry."""

from __future__ import annotations

import sys


def trace_metadata() -> tuple[tuple[str, str], ...]:
    """A W3C traceparent for the span that runs here; nothing without one.

    The library is not imported for this: a program with a span of its own has done so.
    """
    opentelemetry = sys.modules.get("opentelemetry.trace")
    if opentelemetry is None:
        return ()
    context = opentelemetry.get_current_span().get_span_context()
    if not context.is_valid:
        return ()
    flags = int(context.trace_flags) & 0xFF
    return (("traceparent", f"00-{context.trace_id:032x}-{context.span_id:016x}-{flags:02x}"),)
