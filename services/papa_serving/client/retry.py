"""Retries, and the time limit of one call with all its attempts."""

from __future__ import annotations

import random
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from papa_serving.contracts.errors import CredentialExpired, PapaError, RequestLate, Status

_DOUBLINGS = 30
"""Delays grow no further after this many doublings, which keeps the power finite."""


@dataclass(frozen=True)
class Retry:
    """Exponential backoff with jitter: waits first_delay, then twice as long each time, at most longest_delay seconds.

    A delay from the server (google.rpc.RetryInfo) takes precedence. A call is retried as long as its timeout lasts, so
    that a restart of the service is bridged; a call without a timeout gives up after `patience` seconds without an
    answer. `attempts` bounds their number; 1 never retries.
    """

    attempts: int | None = None
    first_delay: float = 0.1
    longest_delay: float = 5.0
    patience: float = 120.0


@dataclass(frozen=True)
class Timeouts:
    """Default timeouts in seconds of one call with all its attempts."""

    generate: float = 120.0
    feedback: float = 15.0
    user: float = 15.0
    transfer: float = 60.0


def may_retry(error: PapaError) -> bool:
    """Whether to retry: after UNAVAILABLE, and after RESOURCE_EXHAUSTED with a delay.

    RESOURCE_EXHAUSTED without a delay (a message too large) would fail for ever. A stream whose credential has expired
    is restarted; with the same credential it then fails for good.
    """
    if error.reason == CredentialExpired.reason:
        return True
    if error.status is Status.RESOURCE_EXHAUSTED:
        return error.retry_after is not None
    return error.status is Status.UNAVAILABLE


_request_id: ContextVar[str] = ContextVar("request_id")


@contextmanager
def request_id(value: str) -> Iterator[None]:
    """Gives the calls that begin within this block the id `value`, which the service logs and returns.

    An id is 1 to 128 visible ASCII characters. Calls outside of such a block have a random one. Raises ValueError.
    """
    if not re.fullmatch(r"[!-~]{1,128}", value):
        raise ValueError(f"{value!r} is no request id: give 1 to 128 visible ASCII characters")
    token = _request_id.set(value)
    try:
        yield
    finally:
        _request_id.reset(token)


class Attempts:
    """The attempts at one call; `timeout` seconds for all of them together, None for no limit."""

    def __init__(self, retry: Retry, timeout: float | None) -> None:
        self._retry = retry
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self.request_id = _request_id.get("") or uuid.uuid4().hex
        self._made = 0
        self._failing_since: float | None = None

    def remaining(self) -> float | None:
        """Seconds left, at least 0; None without a limit."""
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def pause_after(self, error: PapaError) -> float:
        """Seconds to wait before the next attempt. Raises `error` if there is no further attempt.

        A feedback stream that is idle for a while is reopened without limit, because that is not a failure.
        """
        self.name(error)
        if error.reason == RequestLate.reason:
            return 0.0
        self._made += 1
        most = self._retry.attempts
        if (most is not None and self._made >= most) or not may_retry(error):
            raise error
        doubled = self._retry.first_delay * 2.0 ** min(self._made - 1, _DOUBLINGS)
        backoff = min(self._retry.longest_delay, doubled)
        pause = max(backoff * random.uniform(0.5, 1.0), error.retry_after or 0.0)  # noqa: S311
        if pause >= self._time_left():
            raise error
        return pause

    def name(self, error: PapaError) -> PapaError:
        """Adds the id of the request to an error, also where the service did not answer."""
        error.metadata = {"request_id": self.request_id, **error.metadata}
        return error

    def _time_left(self) -> float:
        """Seconds left for retries: those of the call, or of `patience` for a call without a timeout."""
        now = time.monotonic()
        if self._failing_since is None:
            self._failing_since = now
        deadline = self._failing_since + self._retry.patience if self._deadline is None else self._deadline
        return deadline - now

    def succeed(self) -> None:
        """A long stream made progress: the next failure is a first one again."""
        self._made, self._failing_since = 0, None
