"""`python -m benchmarks.isolation.flood ADDRESS SECONDS CALLERS`: one user who asks without end; prints the answers."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections import Counter

from papa_serving.client import AsyncClient, PapaError, Retry

ITEMS = 8


async def caller(client: AsyncClient, end: float, answers: Counter[str]) -> None:
    """Eight items at a time, again at once whatever the answer says."""
    while (left := end - time.monotonic()) > 0:
        try:
            await client.generate("mallory", ITEMS, timeout=max(0.5, left))
            answers["served"] += 1
        except PapaError as error:
            answers[error.reason] += 1
            await asyncio.sleep(0.02)


async def flood(address: str, seconds: float, callers: int) -> Counter[str]:
    """All of them at once."""
    answers: Counter[str] = Counter()
    end = time.monotonic() + seconds
    async with AsyncClient(address, retry=Retry(attempts=1)) as client:
        await asyncio.gather(*(caller(client, end, answers) for _ in range(callers)))
    return answers


if __name__ == "__main__":
    # What the flood itself computes would be computed elsewhere: it gets what the service and the others leave.
    os.nice(19)
    print(json.dumps(asyncio.run(flood(sys.argv[1], float(sys.argv[2]), int(sys.argv[3])))))
