"""How endless streams end: when the gateway goes away, at once and in a way that callers try again elsewhere; and when
the credential that began them expires."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from papa_serving.contracts.errors import CredentialExpired, PapaError, ShuttingDown
from papa_serving.gateway.identity import caller


class Drain:
    """Waits that nobody may be left in."""

    def __init__(self) -> None:
        self._waits: set[asyncio.Timeout] = set()
        self._begun = False

    def begin(self) -> None:
        """Ends every wait, now and from now on."""
        self._begun = True
        for wait in self._waits:
            wait.reschedule(asyncio.get_running_loop().time())

    @asynccontextmanager
    async def endless_wait(self) -> AsyncIterator[None]:
        """Around an await that may last for ever; raises ShuttingDown when the drain begins, CredentialExpired when
        the caller's credential is over."""
        expires_at = caller.get().expires_at
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
