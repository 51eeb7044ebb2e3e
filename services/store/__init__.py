"""State that survives: user state and items on Redis, revisions in files or objects. Backends load when asked for."""

from __future__ import annotations

from services.contracts.items import ItemStore
from services.contracts.revisions import RevisionStore, UserDirectory
from services.settings import Settings


def open_users(settings: Settings) -> UserDirectory:
    """User state on the Redis of the settings; connects when first used. Raises ValueError for a bad URL."""
    from services.store.redis_changes import ChangeFeed
    from services.store.redis_client import connect, connect_listener
    from services.store.redis_keys import Keys
    from services.store.redis_users import RedisUserDirectory

    keys = Keys(settings.redis.prefix, settings.feedback.partitions)
    feed = ChangeFeed(connect_listener(settings.redis))
    return RedisUserDirectory(connect(settings.redis), feed, keys, settings.store)


def open_items(settings: Settings) -> ItemStore:
    """Items on the Redis of the settings; connects when first used. Raises ValueError for a bad URL."""
    from services.store.redis_client import connect
    from services.store.redis_items import RedisItemStore
    from services.store.redis_keys import Keys

    keys = Keys(settings.redis.prefix, settings.feedback.partitions)
    return RedisItemStore(connect(settings.redis), keys, settings.store)


def open_revisions(settings: Settings) -> RevisionStore:
    """Revisions in the object store of the settings, or in their folder, which appears with the first one.

    Raises ValueError for a bad URL.
    """
    if settings.store.url:
        from services.store.object_revisions import ObjectRevisionStore, object_store

        return ObjectRevisionStore(object_store(settings.store.url))
    from services.store.file_revisions import FileRevisionStore

    return FileRevisionStore(settings.store.path or settings.data_dir / "revisions")
