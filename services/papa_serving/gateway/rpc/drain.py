"""Ends endless streams, with a retryable error, when the gateway shuts down or when their credential expires."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from papa_serving.contracts.errors import CredentialExpired, PapaError, ShuttingDown
from papa_serving.gateway.rpc.admission import caller


class Drain:
    """Ends the waits of endless streams when the gateway drains."""

    def __init__(self) -> None:
        self._waits: set[asyncio.Timeout] = set()
        self._begun = False

    def begin(self) -> None:
        """Ends every current wait, and refuses new ones."""
        self._begun = True
        for wait in self._waits:
            wait.reschedule(asyncio.get_running_loop().time())

    @asynccontextmanager
    async def endless_wait(self) -> AsyncIterator[None]:
        """Wraps an await that may last for ever.

        Raises ShuttingDown when the drain begins, CredentialExpired when the caller's credential has expired.
        """
        expires_at = caller.get().identity.expires_at
        remaining = None if math.isinf(expires_at) else expires_at - time.time()
        if self._begun or (remaining is not None and remaining <= 0):
            raise self._reason()
        wait = asyncio.timeout(remaining)
        try:
            async with wait:
                self._waits.add(wait)
                yield
        except TimeoutError:
            if wait.expired():
                raise self._reason() from None
            raise
        finally:
            self._waits.discard(wait)

    def _reason(self) -> PapaError:
        if self._begun:
            return ShuttingDown("this gateway is shutting down; connect again")
        return CredentialExpired("the credential has expired; connect again with a fresh one")
