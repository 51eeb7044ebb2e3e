"""Whether a Redis may hold likes: recent enough, durable, and not about to evict them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import redis

from services.local.failure import Failure
from services.settings import RedisSettings

OLDEST = (6, 2)


@dataclass(frozen=True)
class RedisFacts:
    """What matters of a server. `may_evict`: it has a memory limit and a policy other than noeviction."""

    version: str
    append_only: bool
    may_evict: bool
    policy: str


def check_redis(settings: RedisSettings) -> RedisFacts:
    """The facts of the Redis at `settings.url`; raises Failure where it is not fit, with the way to mend it."""
    place = without_password(settings.url)
    try:
        facts = _facts(settings)
    except (redis.RedisError, ValueError, OSError) as error:
        raise Failure(f"the Redis at {place} does not answer: {error}", "check --redis / PAPA_REDIS__URL") from error
    if tuple(int(part) for part in facts.version.split(".")[:2]) < OLDEST:
        raise Failure(f"the Redis at {place} is version {facts.version}", "6.2 or newer is needed, or any Valkey")
    if settings.require_persistence and not facts.append_only:
        hint = "redis-cli CONFIG SET appendonly yes, or accept the loss with PAPA_REDIS__REQUIRE_PERSISTENCE=false"
        raise Failure(f"the Redis at {place} keeps no append-only file: a restart would lose likes", hint)
    if settings.require_persistence and facts.may_evict:
        hint = "redis-cli CONFIG SET maxmemory-policy noeviction"
        raise Failure(f"the Redis at {place} may evict likes (maxmemory-policy {facts.policy})", hint)
    return facts


def without_password(url: str) -> str:
    """The URL as it may be shown."""
    return re.sub(r"//[^@/]*@", "//", url)


def _facts(settings: RedisSettings) -> RedisFacts:
    """Reads INFO: managed servers often refuse CONFIG."""
    password = settings.password.get_secret_value() if settings.password else None
    given = {} if password is None else {"password": password}
    client = redis.Redis.from_url(settings.url, socket_timeout=settings.socket_timeout, protocol=2, **given)
    with client:
        info: Mapping[str, object] = client.info()
    policy = str(info.get("maxmemory_policy", "noeviction"))
    return RedisFacts(
        version=str(info.get("redis_version", "0.0")),
        append_only=str(info.get("aof_enabled", 0)) == "1",
        may_evict=policy != "noeviction" and str(info.get("maxmemory", 0)) != "0",
        policy=policy,
    )
