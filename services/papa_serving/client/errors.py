"""Turns a failed RPC back into the typed error that the server raised.

The classes are those of papa_serving.contracts.errors: one taxonomy on both sides of the wire. A failure that carries
no google.rpc.ErrorInfo of this product (nobody listens, a proxy in between answered) becomes a CallFailed.
"""

from __future__ import annotations

from collections.abc import Iterable

import grpc
from google.rpc import code_pb2, error_details_pb2, status_pb2  # type: ignore[import-untyped]

from papa_serving.contracts.errors import (
    DeadlineExceeded,
    InvalidRequest,
    PapaError,
    Status,
    Violation,
    error_from_reason,
)
from papa_serving.stubs.serving.v1 import feedback_pb2, generation_pb2

DOMAIN = "papa"
_DETAILS_KEY = "grpc-status-details-bin"
# Messages of grpc.aio for a send that races with the end of the call. It then loses the call's status.
_SEND_TOO_LATE = "Internal error from Core"
_STATUSES = {status.name: status for status in Status}


class CallFailed(PapaError):
    """A failure without this product's details; `code` is the gRPC status code."""

    reason = "CALL_FAILED"

    def __init__(self, code: grpc.StatusCode, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(f"{code.name}: {message}", retry_after=retry_after)
        self.code = code
        self.status = _STATUSES.get(code.name, Status.INTERNAL)


class WrongEventLoop(PapaError, RuntimeError):
    """An AsyncClient was created outside of a running event loop, or used on another loop than its own."""

    status, reason = Status.FAILED_PRECONDITION, "WRONG_EVENT_LOOP"


def ended_early() -> CallFailed:
    """The error for a stream that ended early without an error. A gateway never does this, but a proxy may."""
    return CallFailed(grpc.StatusCode.UNAVAILABLE, "the stream ended before its time")


def error_of_call(failure: grpc.RpcError) -> PapaError:
    """The typed error behind a failed call, sync or aio; its `request_id` finds it in the server's logs."""
    if not isinstance(failure, grpc.Call | grpc.aio.AioRpcError):
        return CallFailed(grpc.StatusCode.UNKNOWN, str(failure))
    info = error_details_pb2.ErrorInfo()
    bad_request = error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    for detail in _status(failure).details:
        for message in (info, bad_request, retry):
            detail.Unpack(message)
    retry_after = retry.retry_delay.ToMilliseconds() / 1000 if retry.HasField("retry_delay") else None
    details = failure.details() or ""
    if failure.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineExceeded(details, metadata=info.metadata)
    if failure.code() is grpc.StatusCode.INTERNAL and details == _SEND_TOO_LATE:
        return CallFailed(grpc.StatusCode.UNAVAILABLE, "the call ended while a request was being sent")
    if info.domain != DOMAIN:
        return CallFailed(failure.code(), details, retry_after=retry_after)
    violations = [Violation(each.field, each.description) for each in bad_request.field_violations]
    if info.reason == InvalidRequest.reason and violations:
        invalid = InvalidRequest(violations)
        invalid.metadata = dict(info.metadata)
        return invalid
    error = error_from_reason(info.reason, details, retry_after, info.metadata)
    error.reason, error.status = info.reason, _STATUSES.get(failure.code().name, Status.INTERNAL)
    error.field = violations[0].field if violations else ""
    return error


def error_of_repeatable(failure: grpc.RpcError, ended: bool) -> PapaError:
    """Like `error_of_call`, for a call that may be made again.

    Unless the caller has `ended` the call or closed the client, CANCELLED came from a server that shut down: it is as
    good as UNAVAILABLE.
    """
    error = error_of_call(failure)
    if isinstance(error, CallFailed) and error.code is grpc.StatusCode.CANCELLED and not ended:
        return CallFailed(grpc.StatusCode.UNAVAILABLE, "the server ended the call, as one that shuts down does")
    return error


def error_of_outcome(message: feedback_pb2.FeedbackError | generation_pb2.GenerationError) -> PapaError:
    """The typed error of one event, or of one of many generations."""
    if message.reason == InvalidRequest.reason:
        return InvalidRequest([Violation(message.field, message.message.removeprefix(f"{message.field}: "))])
    error = error_from_reason(message.reason, message.message, message.retry_after_seconds or None)
    error.reason, error.field = message.reason, message.field
    error.status = _STATUSES.get(code_pb2.Code.Name(code_pb2.Code.ValueType(message.code)), Status.INTERNAL)
    return error


def _status(failure: grpc.Call | grpc.aio.AioRpcError) -> status_pb2.Status:
    metadata: Iterable[tuple[str, str | bytes]] = failure.trailing_metadata() or ()  # type: ignore[assignment]
    for key, value in metadata:
        if key == _DETAILS_KEY and isinstance(value, bytes):
            return status_pb2.Status.FromString(value)
    return status_pb2.Status()
