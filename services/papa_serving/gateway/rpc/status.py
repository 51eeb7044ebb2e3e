"""Converts a PapaError to google.rpc.Status with ErrorInfo, BadRequest, QuotaFailure and RetryInfo."""

from __future__ import annotations

from typing import Any

from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from papa_serving.contracts.errors import (
    InvalidRequest,
    PapaError,
    RateLimited,
    Status,
    StorageDamaged,
    StorageUnavailable,
    Violation,
)

DOMAIN = "papa"
DEFAULT_RETRY_AFTER = 1.0
# Errors travel in HTTP/2 trailers, which many clients limit to 8 KiB in all, base64 and message included.
MAX_MESSAGE = 512
MAX_VIOLATION_BYTES = 3_072
_RETRYABLE = (Status.UNAVAILABLE, Status.RESOURCE_EXHAUSTED)


def retry_after(error: PapaError) -> float | None:
    """Seconds after which a retry can help. Every UNAVAILABLE and RESOURCE_EXHAUSTED has such a delay."""
    if error.retry_after is None and error.status in _RETRYABLE:
        return DEFAULT_RETRY_AFTER
    return error.retry_after


def public_message(error: PapaError) -> str:
    """The message for callers. Storage errors hide internal addresses; long messages are cut to fit the trailers."""
    if isinstance(error, StorageDamaged):
        return "storage answers what cannot be understood; the request id finds it in the logs"
    if isinstance(error, StorageUnavailable):
        return "storage does not answer at the moment"
    return error.message if len(error.message) <= MAX_MESSAGE else f"{error.message[: MAX_MESSAGE - 3]}..."


def rich_status(error: PapaError, request_id: str) -> Any:
    """The google.rpc.Status of `error`."""
    metadata = {"request_id": request_id, **error.metadata}
    details = [_packed(error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata))]
    if violations := _violations(error):
        details.append(_packed(_bad_request(violations)))
    if isinstance(error, RateLimited):
        quota = error_details_pb2.QuotaFailure()
        quota.violations.add(subject=error.subject, description=error.message)
        details.append(_packed(quota))
    if (delay := retry_after(error)) is not None:
        duration = duration_pb2.Duration()
        duration.FromMilliseconds(max(1, round(delay * 1_000)))
        details.append(_packed(error_details_pb2.RetryInfo(retry_delay=duration)))
    return status_pb2.Status(code=int(error.status), message=public_message(error), details=details)


def _violations(error: PapaError) -> tuple[Violation, ...]:
    if isinstance(error, InvalidRequest):
        return error.violations
    return (Violation(error.field, error.message),) if error.field else ()


def _bad_request(violations: tuple[Violation, ...]) -> Any:
    """All violations, or as many as fit, followed by one that counts the rest."""
    bad_request = error_details_pb2.BadRequest()
    room = MAX_VIOLATION_BYTES
    for index, violation in enumerate(violations):
        room -= len(violation.field) + len(violation.description) + 8
        if room < 0:
            bad_request.field_violations.add(description=f"and {len(violations) - index} more violations")
            break
        bad_request.field_violations.add(field=violation.field, description=violation.description)
    return bad_request


def _packed(message: Any) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
