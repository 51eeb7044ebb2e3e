"""How endless streams end when the gateway goes away: at once, and in a way that callers try again elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.contracts.errors import ShuttingDown


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
        """Around an await that may last for ever; raises ShuttingDown when the drain begins."""
        if self._begun:
            raise _shutting_down()
        wait = asyncio.timeout(None)
        try:
            async with wait:
                self._waits.add(wait)
                yield
        except TimeoutError:
            if wait.expired():
                raise _shutting_down() from None
            raise
        finally:
            self._waits.discard(wait)


def _shutting_down() -> ShuttingDown:
    return ShuttingDown("this gateway is shutting down; connect again")
