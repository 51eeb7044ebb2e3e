"""Logs on standard error: one JSON object per line, with the id of the request that caused it."""

from __future__ import annotations

import json
import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from typing_extensions import override

from papa_serving import tracing
from papa_serving.contracts.trace import ids
from papa_serving.settings import LogSettings
from papa_serving.terminal_text import harmless

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""Set at the edge of each request. Every log line of the request contains it."""

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "request_id"}


class JsonFormatter(logging.Formatter):
    """Fields: time (RFC 3339, UTC), level, logger, message, request_id, trace_id and span_id when known, whatever
    `extra` names, exception."""

    def format(self, record: logging.LogRecord) -> str:
        """One line of JSON."""
        fields: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request_id.get():
            fields["request_id"] = request_id.get()
        if traceparent := tracing.current().traceparent:
            fields["trace_id"], fields["span_id"] = ids(traceparent)
        fields |= {name: value for name, value in vars(record).items() if name not in _STANDARD}
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, default=str)


class TextFormatter(logging.Formatter):
    """Formats for people: exactly one line per message, whatever a stranger has put into it, then the traceback."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")

    @override
    def formatMessage(self, record: logging.LogRecord) -> str:
        return harmless(super().formatMessage(record))

    @override
    def formatException(self, ei: Any) -> str:
        return harmless(super().formatException(ei), lines=True)


def configure(settings: LogSettings) -> None:
    """Sends the root logger to standard error in the configured format and removes its other handlers."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if settings.format == "json" else TextFormatter())
    logging.basicConfig(level=settings.level.upper(), handlers=[handler], force=True)
