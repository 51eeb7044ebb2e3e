"""Traces from a like to what it changed: spans that cost nothing until `begin` is called with tracing enabled.

A context travels as a W3C traceparent in metadata, messages and records, so no other file depends on the recorder.
No attribute of a span names a user, a tenant, an event or an item.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Literal

from papa_serving.contracts.errors import PapaError
from papa_serving.contracts.trace import checked
from papa_serving.settings.tracing import TracingSettings

Value = str | int | float | bool
Kind = Literal["internal", "server", "client", "producer", "consumer"]

FLUSH_SECONDS = 1.5
"""Seconds that a worker waits for the collector at its end."""


class Span:
    """A piece of work in a trace. This base class records nothing and passes on the context of its parent."""

    def __init__(self, traceparent: str = "") -> None:
        self.traceparent = traceparent

    def note(self, attributes: Mapping[str, Value]) -> None:
        """Adds attributes."""

    def link(self, traceparent: str) -> None:
        """Links to a cause in another trace; does nothing for ""."""

    def settle(self, error: str = "") -> None:
        """Sets the outcome in one word ("" = success). The first word counts."""

    def end(self, at: float | None = None) -> None:
        """Ends the span, now or at a Unix time."""


class Recorder(ABC):
    """Creates spans that are recorded."""

    @abstractmethod
    def start(
        self,
        name: str,
        kind: Kind,
        parent: str,
        links: Iterable[str],
        attributes: Mapping[str, Value],
        at: float | None,
    ) -> Span:
        """Begins a span, now or at a Unix time. `parent` "" begins a trace."""

    @abstractmethod
    def stop(self, seconds: float) -> None:
        """Sends waiting spans, for at most so many seconds."""


class _Process:
    """The recorder of this process."""

    recorder: Recorder | None = None


_NOTHING = Span()
_current: ContextVar[Span] = ContextVar("span", default=_NOTHING)


def current() -> Span:
    """The current span: the innermost one, or the caller's context."""
    return _current.get()


def continue_from(traceparent: str) -> None:
    """Makes this context the parent of the block. A malformed context is ignored."""
    _current.set(Span(traceparent) if checked(traceparent) else _NOTHING)


def begin(settings: TracingSettings, service: str) -> None:
    """Begins to record, if enabled, as the service of that name. Raises ValueError for unusable settings."""
    end(0.0)
    if settings.enabled:
        from papa_serving.tracing.otel import OtelRecorder

        _Process.recorder = OtelRecorder(settings, service)


def end(seconds: float = FLUSH_SECONDS) -> None:
    """Sends waiting spans, for at most so many seconds, and stops recording."""
    recorder, _Process.recorder = _Process.recorder, None
    if recorder is not None:
        recorder.stop(seconds)


def span(
    name: str,
    kind: Kind = "internal",
    *,
    parent: str | None = None,
    links: Iterable[str] = (),
    attributes: Mapping[str, Value] | None = None,
    at: float | None = None,
) -> AbstractContextManager[Span]:
    """Records the block. `parent` defaults to the current span; "" begins a trace. `at` is the time of its beginning.

    A trace that begins with links is recorded if one of the linked traces is.
    """
    outer = _current.get()
    if _Process.recorder is None:
        return nullcontext(outer)
    above = outer.traceparent if parent is None else parent
    return _running(_Process.recorder.start(name, kind, above, links, attributes or {}, at), outer)


@contextmanager
def _running(made: Span, outer: Span) -> Iterator[Span]:
    _current.set(made)
    try:
        yield made
    except PapaError as error:
        made.settle(error.reason)
        raise
    except Exception as error:
        made.settle(type(error).__name__)
        raise
    finally:
        # Not reset by token: an asynchronous generator may be closed in another context than it began in.
        _current.set(outer)
        made.end()


def record(name: str, began: float, ended: float, attributes: Mapping[str, Value] | None = None) -> None:
    """Records a part of the current span that has ended, with its Unix times."""
    if _Process.recorder is not None:
        parent = _current.get().traceparent
        _Process.recorder.start(name, "internal", parent, (), attributes or {}, began).end(ended)
