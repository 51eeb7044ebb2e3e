"""Measures the time from the last like of a round to items of the revision that learnt from it, for an active user."""

from __future__ import annotations

import asyncio
import time

from papa_serving.client import AsyncClient, FeedbackEvent

LABELS = 10
ROUNDS = {1: 20, 8: 1, 32: 1}
"""Rounds of rating by number of active users: few enough to end; of one user so many that a p95 is not the worst."""


async def seconds_to_served(address: str, users: int) -> list[float]:
    """One figure a user and round; every user rates again as soon as the last round's revision was served."""
    async with AsyncClient(address) as client:
        if users == 1:
            await _round(client, "warm", 0)
        each = [_user(client, f"active-{users}-{number}", ROUNDS[users]) for number in range(users)]
        return [figure for figures in await asyncio.gather(*each) for figure in figures]


async def _user(client: AsyncClient, user: str, rounds: int) -> list[float]:
    return [await _round(client, user, number) for number in range(rounds)]


async def _round(client: AsyncClient, user: str, number: int) -> float:
    shown = await client.generate(user, LABELS, timeout=300.0)
    events = [
        FeedbackEvent(user, 1.0 if (index + number) % 2 else -1.0, item_id=item.item_id)
        for index, item in enumerate(shown.items)
    ]
    begun = time.monotonic()
    await client.submit_feedback(events)
    await client.wait_for_revision(user, after=shown.revision, timeout=300.0)
    served = await client.generate(user, LABELS, timeout=300.0)
    if served.revision == shown.revision:
        raise RuntimeError("the announced revision was not served")
    return time.monotonic() - begun
