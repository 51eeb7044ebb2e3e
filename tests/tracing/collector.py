"""A collector: the OTLP TraceService over a real socket, and what arrives put in order."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as service
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as service_grpc
from papa_serving import tracing
from papa_serving.settings.tracing import TracingSettings

PATIENCE = 60.0


@dataclass(frozen=True)
class Spanned:
    """One span as it arrived; ids in hexadecimal, `links` as (trace id, span id)."""

    service: str
    name: str
    kind: int
    trace_id: str
    span_id: str
    parent: str
    seconds: float
    attributes: dict[str, Any]
    links: tuple[tuple[str, str], ...]
    error: str

    @property
    def identity(self) -> tuple[str, str]:
        return self.trace_id, self.span_id


class Collector(service_grpc.TraceServiceServicer):
    """Use it as a context manager; it answers at `endpoint`."""

    def __init__(self, port: int = 0, credentials: grpc.ServerCredentials | None = None) -> None:
        self.headers: list[dict[str, str]] = []
        self.delay = 0.0
        self._spans: list[Spanned] = []
        self._arrived = threading.Condition()
        self._server = grpc.server(futures.ThreadPoolExecutor(2))
        service_grpc.add_TraceServiceServicer_to_server(self, self._server)
        at = f"127.0.0.1:{port}"
        bound = self._server.add_secure_port(at, credentials) if credentials else self._server.add_insecure_port(at)
        self.endpoint = f"{'https' if credentials else 'http'}://127.0.0.1:{bound}"

    def __enter__(self) -> Collector:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(None).wait()

    def Export(self, request: service.ExportTraceServiceRequest, context: Any) -> service.ExportTraceServiceResponse:
        time.sleep(self.delay)
        with self._arrived:
            self.headers.append({key: value for key, value in context.invocation_metadata() if isinstance(value, str)})
            for resource in request.resource_spans:
                about = _values(resource.resource.attributes)
                for scope in resource.scope_spans:
                    self._spans += [_spanned(str(about["service.name"]), span) for span in scope.spans]
            self._arrived.notify_all()
        return service.ExportTraceServiceResponse()

    @property
    def spans(self) -> list[Spanned]:
        with self._arrived:
            return list(self._spans)

    def wait(self, wanted: Callable[[Spanned], bool], seconds: float = PATIENCE) -> Spanned:
        """The first one of that kind, as soon as it is there."""
        deadline = time.monotonic() + seconds
        with self._arrived:
            while True:
                found = next(filter(wanted, self._spans), None)
                if found is not None:
                    return found
                if not self._arrived.wait(deadline - time.monotonic()):
                    raise AssertionError(f"did not arrive; these did: {[each.name for each in self._spans]}")

    def above(self, span: Spanned) -> Spanned:
        """The one that it is a part of."""
        return self.wait(lambda each: each.identity == (span.trace_id, span.parent))

    def named(self, name: str, seconds: float = PATIENCE) -> Spanned:
        return self.wait(lambda each: each.name == name, seconds)


def _spanned(name: str, span: Any) -> Spanned:
    return Spanned(
        service=name,
        name=span.name,
        kind=span.kind,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        seconds=(span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
        attributes=_values(span.attributes),
        links=tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
        error=span.status.message if span.status.code == 2 else "",
    )


def _values(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


@pytest.fixture
def recording(collector: Collector) -> Iterator[Collector]:
    """The collector of what this process does."""
    tracing.begin(TracingSettings(enabled=True, endpoint=collector.endpoint), "papa-test")
    yield collector
    tracing.end()
