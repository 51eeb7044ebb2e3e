"""Records spans with OpenTelemetry's SDK and sends them as OTLP over gRPC. No other file imports it."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import grpc
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, Sampler, SamplingResult, TraceIdRatioBased
from opentelemetry.util.types import Attributes
from typing_extensions import override

from papa_serving.contracts.trace import checked, flags, ids
from papa_serving.settings.tracing import TracingSettings, parse_headers
from papa_serving.tracing import Kind, Recorder, Span, Value
from papa_serving.watched_file import WatchedFile

MAX_LINKS = 1024
BATCH = 512
DELAY_MILLISECONDS = 1000.0

_KINDS = {
    "internal": trace.SpanKind.INTERNAL,
    "server": trace.SpanKind.SERVER,
    "client": trace.SpanKind.CLIENT,
    "producer": trace.SpanKind.PRODUCER,
    "consumer": trace.SpanKind.CONSUMER,
}


class OtelRecorder(Recorder):
    """Uses a private provider, because the global one belongs to other code in the process.

    Spans wait in a bounded queue for a sender thread. A slow or missing collector loses spans but never delays a call.
    """

    def __init__(self, settings: TracingSettings, service: str) -> None:
        """Raises ValueError for headers and OSError for their file, ValueError for an authority that cannot be read."""
        self._provider = TracerProvider(
            sampler=ParentBased(LinkedOrRatio(settings.sample_ratio)),
            resource=Resource.create(_resource(service)),
            shutdown_on_exit=False,
            span_limits=SpanLimits(max_links=MAX_LINKS),
        )
        self._provider.add_span_processor(
            BatchSpanProcessor(_exporter(settings), settings.queue, DELAY_MILLISECONDS, BATCH)
        )
        self._tracer = self._provider.get_tracer("papa")

    def start(
        self,
        name: str,
        kind: Kind,
        parent: str,
        links: Iterable[str],
        attributes: Mapping[str, Value],
        at: float | None,
    ) -> Span:
        """Begins a span. If the sampler drops it, only its context exists. Malformed links are ignored."""
        context = Context()
        if checked(parent):
            context = trace.set_span_in_context(trace.NonRecordingSpan(_context(parent)), context)
        return OtelSpan(
            self._tracer.start_span(
                name,
                context,
                _KINDS[kind],
                dict(attributes),
                [trace.Link(_context(each)) for each in links if checked(each)],
                None if at is None else _nanoseconds(at),
                record_exception=False,
                set_status_on_exception=False,
            )
        )

    def stop(self, seconds: float) -> None:
        """Stops in a daemon thread, because the SDK may wait for half a minute."""
        ending = threading.Thread(target=self._provider.shutdown, name="tracing-end", daemon=True)
        ending.start()
        ending.join(seconds)


class OtelSpan(Span):
    """A span that is recorded if its trace is."""

    def __init__(self, span: trace.Span) -> None:
        context = span.get_span_context()
        super().__init__(f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}")
        self._span = span
        self._settled = False

    def note(self, attributes: Mapping[str, Value]) -> None:
        """Adds attributes."""
        self._span.set_attributes(attributes)

    def link(self, traceparent: str) -> None:
        """Adds a link. It comes too late to influence the sampling."""
        if checked(traceparent):
            self._span.add_link(_context(traceparent))

    def settle(self, error: str = "") -> None:
        """Sets `error.type` and the status to the word. Messages are left out, because they may quote a caller."""
        if not self._settled and error:
            self._span.set_attribute("error.type", error)
            self._span.set_status(trace.Status(trace.StatusCode.ERROR, error))
        self._settled = True

    def end(self, at: float | None = None) -> None:
        """Ends the span and puts it into the queue."""
        self._span.end(None if at is None else _nanoseconds(at))


class LinkedOrRatio(Sampler):
    """Samples spans that begin a trace: those with links if a linked trace is recorded, the others by the ratio.

    So every recorded like also has its update recorded, and a ratio of 1 % gives complete chains of traces.
    """

    def __init__(self, ratio: float) -> None:
        self._ratio = TraceIdRatioBased(ratio)
        self._whole = TraceIdRatioBased(1.0)
        self._nothing = TraceIdRatioBased(0.0)

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: trace.SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[trace.Link] | None = None,
        trace_state: trace.TraceState | None = None,
    ) -> SamplingResult:
        """Decides as described for the class."""
        chosen: Sampler = self._ratio
        if links:
            chosen = self._whole if any(link.context.trace_flags.sampled for link in links) else self._nothing
        return chosen.should_sample(parent_context, trace_id, name, kind, attributes, links)

    def get_description(self) -> str:
        """A description for the SDK's own logs."""
        return f"LinkedOrRatio{{{self._ratio.rate}}}"


def _context(traceparent: str) -> trace.SpanContext:
    trace_id, span_id = ids(traceparent)
    return trace.SpanContext(int(trace_id, 16), int(span_id, 16), True, trace.TraceFlags(flags(traceparent)))


Headers = tuple[tuple[str, str], ...]


class _Exporter(OTLPSpanExporter):
    """Sends the headers as they are at each export: a collector's credentials may be replaced meanwhile."""

    def __init__(self, current: Callable[[], Headers], **options: Any) -> None:
        super().__init__(headers=current(), **options)
        self._current = current

    @override
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Sends one batch, as the sender's thread calls it."""
        self._headers = self._current() or self._headers
        return super().export(spans)


def _headers(settings: TracingSettings) -> Callable[[], Headers]:
    """Gives the headers, of which those in a file are read again when it changes."""
    if (given := settings.headers) is not None or (file := settings.headers_file) is None:
        fixed = parse_headers(given)
        return lambda: fixed
    return WatchedFile((file,), lambda: parse_headers(file.read_text())).value


def _exporter(settings: TracingSettings) -> OTLPSpanExporter:
    secure = settings.endpoint.startswith("https://")
    credentials = None
    if secure:
        try:
            roots = settings.ca.read_bytes() if settings.ca is not None else None
        except OSError as error:
            raise ValueError(f"tracing.ca cannot be read: {error.strerror}") from error
        credentials = grpc.ssl_channel_credentials(roots)
    return _Exporter(
        _headers(settings),
        endpoint=settings.endpoint,
        insecure=not secure,
        credentials=credentials,
        timeout=settings.timeout,
    )


def _resource(service: str) -> dict[str, str | int]:
    try:
        installed = version("papa-serving")
    except PackageNotFoundError:
        installed = "source"
    host = socket.gethostname()
    return {
        "service.name": service,
        "service.version": installed,
        "service.instance.id": f"{host}:{os.getpid()}",
        "host.name": host,
    }


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)
