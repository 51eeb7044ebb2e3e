"""What users were shown and did, so that an owner can attribute it. Backends load when asked for."""

from __future__ import annotations

from papa_serving.contracts.attribution import ActivityLog
from papa_serving.settings import Settings


def open_activity(settings: Settings) -> ActivityLog:
    """The log on the Redis of the settings; connects when first used. Raises ValueError for a bad URL."""
    from papa_serving.attribution.redis_activity import RedisActivityLog
    from papa_serving.store.redis_client import connect
    from papa_serving.store.redis_keys import Keys

    keys = Keys(settings.redis.prefix, settings.feedback.partitions)
    return RedisActivityLog(connect(settings.redis), keys, settings.attribution)
