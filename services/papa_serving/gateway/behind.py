"""Work behind the answers: no call waits for it, and none fails with it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

MAX_UNDER_WAY = 256
"""Pieces of work at once. Further ones are not begun: slow storage takes no memory."""
CLOSING_SECONDS = 2.0
"""Time that work gets when the gateway ends."""


class Behind:
    """Runs pieces of work. Each handles its own errors."""

    def __init__(self) -> None:
        self._under_way: set[asyncio.Task[None]] = set()

    @property
    def full(self) -> bool:
        """Whether no more can be begun now."""
        return len(self._under_way) >= MAX_UNDER_WAY

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Begins a piece of work, which must not be called while `full`."""
        task = asyncio.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def close(self) -> None:
        """Waits for what is under way, for CLOSING_SECONDS at most."""
        if self._under_way:
            _, late = await asyncio.wait(self._under_way, timeout=CLOSING_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
