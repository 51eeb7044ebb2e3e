"""Keeps what users were shown, behind the answers."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable

from papa_serving.contracts.attribution import ActivityLog, Impression
from papa_serving.contracts.errors import PapaError
from papa_serving.contracts.identity import UserKey
from papa_serving.gateway.behind import Behind
from papa_serving.gateway.rpc.admission import Buckets
from papa_serving.metrics import IMPRESSIONS
from papa_serving.settings import AttributionSettings

log = logging.getLogger(__name__)

BURST_SECONDS = 10.0
"""A rested tenant may have the impressions of so many seconds at once."""


class Impressions:
    """Samples impressions, bounds those of each tenant, and stores them one by one."""

    def __init__(
        self,
        activity: ActivityLog,
        settings: AttributionSettings,
        behind: Behind,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._activity, self._behind, self._clock = activity, behind, clock
        self._share, rate = settings.impression_share, settings.tenant_impressions
        self._tenants = Buckets(rate, rate * BURST_SECONDS)

    def keep(self, user: UserKey, impression: Impression) -> None:
        """Keeps what `user` was shown, if it is in the sample. Returns at once; a failure is counted."""
        source, now = impression.origin.removesuffix("_id"), self._clock()
        if not sampled(impression.origin_id, self._share):
            IMPRESSIONS.labels(source, "unsampled").inc()
        elif self._tenants.wait(user.tenant, 1.0, now) > 0:
            IMPRESSIONS.labels(source, "limited").inc()
        elif self._behind.full:
            IMPRESSIONS.labels(source, "dropped").inc()
        else:
            self._tenants.take(user.tenant, 1.0, now)
            self._behind.begin(self._store(user, impression, source))

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
