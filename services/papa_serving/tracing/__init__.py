"""Traces from a like to what it changed: spans that cost nothing until `begin` is called with tracing enabled.

A context travels as a W3C traceparent, in metadata, messages and records, so that no other file knows what records it.
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
"""What the end of a worker waits for the collector."""


class Span:
    """What runs, for those who look at traces. This one records nothing: its context is another's."""

    def __init__(self, traceparent: str = "") -> None:
        self.traceparent = traceparent

    def note(self, attributes: Mapping[str, Value]) -> None:
        """Adds attributes."""

    def link(self, traceparent: str) -> None:
        """Points at what has caused this in another trace; nothing for ""."""

    def settle(self, error: str = "") -> None:
        """Says how it went, in one word ("" = well); the first word counts."""

    def end(self, at: float | None = None) -> None:
        """Is over, now or at a Unix time."""


class Recorder(ABC):
    """Makes spans that are kept."""

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
        """A span that has begun, now or at a Unix time; `parent` "" begins a trace."""

    @abstractmethod
    def stop(self, seconds: float) -> None:
        """Sends what waits, for so long at most."""


class _Process:
    """What this process records with."""

    recorder: Recorder | None = None


_NOTHING = Span()
_current: ContextVar[Span] = ContextVar("span", default=_NOTHING)


def current() -> Span:
    """What runs here: the innermost span, or the caller's context."""
    return _current.get()


def continue_from(traceparent: str) -> None:
    """What runs here belongs to this context; to none where it is not well formed."""
    _current.set(Span(traceparent) if checked(traceparent) else _NOTHING)


def begin(settings: TracingSettings, service: str) -> None:
    """Records from now on, where enabled, as the service of that name. Raises ValueError for unusable settings."""
    end(0.0)
    if settings.enabled:
        from papa_serving.tracing.otel import OtelRecorder

        _Process.recorder = OtelRecorder(settings, service)


def end(seconds: float = FLUSH_SECONDS) -> None:
    """Sends what waits, for so long at most, and records nothing from now on."""
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
    """Records the block. `parent` is what runs here unless given, "" for a trace of its own; `at` when it began.

    A trace that begins with links is recorded when one of them is.
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
        # Not by the token: an asynchronous generator may be closed in another context than it began in.
        _current.set(outer)
        made.end()


def record(name: str, began: float, ended: float, attributes: Mapping[str, Value] | None = None) -> None:
    """A part of what runs here that is over; Unix times."""
    if _Process.recorder is not None:
        parent = _current.get().traceparent
        _Process.recorder.start(name, "internal", parent, (), attributes or {}, began).end(ended)
