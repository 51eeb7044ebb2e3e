"""The durable order of feedback: append, read, commit, dead letters. The backend loads when asked for."""

from __future__ import annotations

from papa_serving.contracts.feedback import FeedbackLog
from papa_serving.settings import Settings


def open_log(settings: Settings) -> FeedbackLog:
    """The log on the Redis of the settings; connects when first used. Raises ValueError for a bad URL."""
    from papa_serving.feedback.redis_log import RedisFeedbackLog
    from papa_serving.store.redis_client import connect
    from papa_serving.store.redis_keys import Keys

    keys = Keys(settings.redis.prefix, settings.feedback.partitions)
    return RedisFeedbackLog(connect(settings.redis), keys, settings)
