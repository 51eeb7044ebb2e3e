"""Keeps what users were shown, behind the answers: no call waits for it, and none fails with it."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable

from papa_serving.contracts.attribution import ActivityLog, Impression
from papa_serving.contracts.errors import PapaError
from papa_serving.contracts.identity import UserKey
from papa_serving.gateway.rpc.admission import Buckets
from papa_serving.metrics import IMPRESSIONS
from papa_serving.settings import AttributionSettings

log = logging.getLogger(__name__)

MAX_UNDER_WAY = 256
"""Impressions that are on their way to storage at once. Further ones are dropped: slow storage takes no memory."""
BURST_SECONDS = 10.0
"""A rested tenant may have the impressions of so many seconds at once."""
CLOSING_SECONDS = 2.0
"""Time that impressions on their way get when the gateway ends."""


class Impressions:
    """Samples impressions, bounds those of each tenant, and stores them one by one."""

    def __init__(
        self, activity: ActivityLog, settings: AttributionSettings, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._activity, self._clock = activity, clock
        self._share, rate = settings.impression_share, settings.tenant_impressions
        self._tenants = Buckets(rate, rate * BURST_SECONDS)
        self._under_way: set[asyncio.Task[None]] = set()

    def keep(self, user: UserKey, impression: Impression) -> None:
        """Keeps what `user` was shown, if it is in the sample. Returns at once; a failure is counted."""
        source, now = impression.origin.removesuffix("_id"), self._clock()
        if not sampled(impression.origin_id, self._share):
            IMPRESSIONS.labels(source, "unsampled").inc()
        elif self._tenants.wait(user.tenant, 1.0, now) > 0:
            IMPRESSIONS.labels(source, "limited").inc()
        elif len(self._under_way) >= MAX_UNDER_WAY:
            IMPRESSIONS.labels(source, "dropped").inc()
        else:
            self._tenants.take(user.tenant, 1.0, now)
            task = asyncio.create_task(self._store(user, impression, source))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def close(self) -> None:
        """Waits for what is on its way, for CLOSING_SECONDS at most."""
        if self._under_way:
            _, late = await asyncio.wait(self._under_way, timeout=CLOSING_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _store(self, user: UserKey, impression: Impression, source: str) -> None:
        try:
            await self._activity.add(user, "impression", impression.encode())
        except PapaError as error:
            IMPRESSIONS.labels(source, "failed").inc()
            log.debug("an impression was not kept: %s", error, extra={"reason": error.reason})
        else:
            IMPRESSIONS.labels(source, "kept").inc()


def sampled(origin_id: str, share: float) -> bool:
    """Whether the id is in a sample of this share: always the same answer, on every gateway."""
    number = int.from_bytes(hashlib.blake2b(origin_id.encode(), digest_size=8).digest())
    return number < share * 2**64
