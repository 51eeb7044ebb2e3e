"""Catalogues of real items and the index that finds them. Backends load when asked for."""

from __future__ import annotations

from papa_serving.contracts.catalogue import Catalogues
from papa_serving.settings import Settings


def open_catalogues(settings: Settings) -> Catalogues:
    """Catalogues in the Redis of the settings; connects when first used. Raises ValueError for a bad URL."""
    from papa_serving.catalogue.redis_catalogues import RedisCatalogues
    from papa_serving.store.redis_client import connect

    mine, redis = settings.catalogue, settings.redis
    if not mine.url:
        return RedisCatalogues(connect(redis), redis.prefix, mine)
    redis = redis.model_copy(update={"url": mine.url, "password": mine.password, "password_file": None})
    try:
        return RedisCatalogues(connect(redis), redis.prefix, mine)
    except ValueError as error:
        raise ValueError(str(error).replace("redis.url", "catalogue.url")) from error
