"""The span of an RPC, by OpenTelemetry's conventions for gRPC servers."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager

import grpc

from papa_serving import tracing

_PACKAGE = "papa.serving.v1"
_FAULTS = {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
"""Codes that count as failures of the server; what the others say is the caller's."""


def of_rpc(method: str, metadata: Mapping[str, str]) -> AbstractContextManager[tracing.Span]:
    """Around one RPC ("Service/Method"); below the caller's span where the metadata names one."""
    service, _, name = method.partition("/")
    tracing.continue_from(metadata.get("traceparent", ""))
    attributes = {"rpc.system": "grpc", "rpc.service": f"{_PACKAGE}.{service}", "rpc.method": name}
    return tracing.span(f"{_PACKAGE}.{method}", "server", attributes=attributes)


def settle(span: tracing.Span, code: str) -> None:
    """With the gRPC status code's name."""
    span.note({"rpc.grpc.status_code": grpc.StatusCode[code].value[0]})
    span.settle(code if code in _FAULTS else "")
