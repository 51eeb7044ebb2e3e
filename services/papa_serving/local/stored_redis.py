"""The Redis of a store for commands that need no service: the one that is named, or that of a stopped `papa up`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from papa_serving.local.failure import Failure
from papa_serving.local.instance_lock import InstanceLock
from papa_serving.local.placement import updated
from papa_serving.local.redis_process import RedisProcess, RedisProcessError
from papa_serving.settings import Settings


@contextmanager
def stored_redis(settings: Settings) -> Iterator[Settings]:
    """Settings with a `redis.url` that answers; the embedded server of the data folder runs as long as this lasts.

    Raises Failure when no Redis is named and the folder holds none, or when a service runs on it.
    """
    if settings.redis.url:
        yield settings
        return
    folder = settings.data_dir / "redis"
    if not folder.is_dir():
        hint = "name a Redis (redis.url), or the folder that papa up has run on (data_dir)"
        raise Failure(f"no Redis is named, and {settings.data_dir} holds none", hint)
    with InstanceLock(settings.data_dir):
        try:
            with RedisProcess(folder, appendfsync=settings.redis.appendfsync) as redis:
                yield updated(settings, redis={"url": redis.url})
        except RedisProcessError as error:
            raise Failure(str(error)) from error
