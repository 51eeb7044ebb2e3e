"""State that survives: user state and items on Redis, revisions in files or objects. Backends load when asked for."""

from __future__ import annotations

from papa_serving.contracts.items import ItemStore
from papa_serving.contracts.recommending import SeenItems
from papa_serving.contracts.revisions import RevisionStore, UserDirectory
from papa_serving.settings import Settings


def open_users(settings: Settings) -> UserDirectory:
    """User state on the Redis of the settings; connects when first used. Raises ValueError for a bad URL."""
    from papa_serving.store.redis_changes import ChangeFeed
    from papa_serving.store.redis_client import connect, connect_listener
    from papa_serving.store.redis_keys import Keys
    from papa_serving.store.redis_users import RedisUserDirectory

    keys = Keys(settings.redis.prefix, settings.feedback.partitions)
    feed = ChangeFeed(connect_listener(settings.redis))
    return RedisUserDirectory(connect(settings.redis), feed, keys, settings.store)


def open_items(settings: Settings) -> ItemStore:
    """Items on the Redis of the settings; connects when first used. Raises ValueError for a bad URL."""
    from papa_serving.store.redis_client import connect
    from papa_serving.store.redis_items import RedisItemStore
    from papa_serving.store.redis_keys import Keys

    keys = Keys(settings.redis.prefix, settings.feedback.partitions)
    return RedisItemStore(connect(settings.redis), keys, settings.store)


def open_seen(settings: Settings) -> SeenItems:
    """What was recommended lately, on the Redis of the settings; connects when first used. Raises ValueError for a bad
    URL."""
    from papa_serving.store.redis_client import connect
    from papa_serving.store.redis_keys import Keys
    from papa_serving.store.redis_seen import RedisSeenItems

    keys = Keys(settings.redis.prefix, settings.feedback.partitions)
    return RedisSeenItems(connect(settings.redis), keys, settings.store)


def open_revisions(settings: Settings) -> RevisionStore:
    """Revisions in the object store of the settings, or in their folder, which appears with the first one.

    Raises ValueError for a bad URL.
    """
    if settings.store.url:
        from papa_serving.store.object_revisions import ObjectRevisionStore, object_stores

        return ObjectRevisionStore(object_stores(settings.store.url, settings.store.credentials))
    from papa_serving.store.file_revisions import FileRevisionStore

    return FileRevisionStore(settings.store.path or settings.data_dir / "revisions")


async def observe_storage(settings: Settings) -> None:
    """Keeps the gauges of the Redis of the settings true until it is cancelled. Raises ValueError for a bad URL."""
    from papa_serving.store.redis_usage import observe_redis

    await observe_redis(settings.redis)
