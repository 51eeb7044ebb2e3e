"""When to try again, and how long one call with all its attempts may take."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

from papa_serving.contracts.errors import CredentialExpired, PapaError, RequestLate, Status


@dataclass(frozen=True)
class Retry:
    """Exponential backoff with jitter: waits first_delay, then twice as long each time, at most longest_delay seconds.

    A server that names its own delay (google.rpc.RetryInfo) is obeyed. `attempts` = 1 never tries again.
    """

    attempts: int = 5
    first_delay: float = 0.1
    longest_delay: float = 5.0


@dataclass(frozen=True)
class Timeouts:
    """Seconds for one call with all its attempts, where the call itself names none."""

    generate: float = 120.0
    feedback: float = 15.0
    user: float = 15.0
    transfer: float = 60.0


def may_retry(error: PapaError) -> bool:
    """UNAVAILABLE, and RESOURCE_EXHAUSTED with a delay: without one (a message too large) it would fail for ever.

    A stream whose credential has expired is begun again: with the same one it then fails for good.
    """
    if error.reason == CredentialExpired.reason:
        return True
    if error.status is Status.RESOURCE_EXHAUSTED:
        return error.retry_after is not None
    return error.status is Status.UNAVAILABLE


class Attempts:
    """The attempts at one call; `timeout` seconds for all of them together, None for no limit."""

    def __init__(self, retry: Retry, timeout: float | None) -> None:
        self._retry = retry
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._made = 0

    def remaining(self) -> float | None:
        """Seconds left, at least 0; None without a limit."""
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def pause_after(self, error: PapaError) -> float:
        """Seconds to wait before the next attempt; raises `error` where there is to be none.

        A feedback stream that has nothing to send for a while is opened again without end: that is no failure.
        """
        if error.reason == RequestLate.reason:
            return 0.0
        self._made += 1
        if self._made >= self._retry.attempts or not may_retry(error):
            raise error
        backoff = min(self._retry.longest_delay, self._retry.first_delay * 2.0 ** (self._made - 1))
        pause = max(backoff * random.uniform(0.5, 1.0), error.retry_after or 0.0)  # noqa: S311
        remaining = self.remaining()
        if remaining is not None and pause >= remaining:
            raise error
        return pause

    def succeed(self) -> None:
        """A long stream made progress: the next failure is a first one again."""
        self._made = 0
