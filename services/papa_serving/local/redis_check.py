"""Whether a Redis may hold likes: recent enough, durable, and not about to evict them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import redis
from redis.cluster import ClusterNode
from redis.exceptions import RedisClusterException
from redis.sentinel import Sentinel

from papa_serving.local.failure import Failure
from papa_serving.settings import RedisSettings
from papa_serving.store.redis_address import Topology, address_of

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
    except (redis.RedisError, RedisClusterException, ValueError, OSError) as error:
        raise Failure(f"the Redis at {place} does not answer: {error}", "check --redis / PAPA_REDIS__URL") from error
    if _release(facts.version) < OLDEST:
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
    """Reads INFO: managed servers often refuse CONFIG. Of a Cluster's primaries, the worst counts."""
    infos = _infos(settings)
    oldest = min(infos, key=lambda info: _release(str(info.get("redis_version", "0.0"))))
    policies = [str(info.get("maxmemory_policy", "noeviction")) for info in infos]
    limited = [str(info.get("maxmemory", 0)) != "0" for info in infos]
    evicting = [policy for policy, limit in zip(policies, limited, strict=True) if policy != "noeviction" and limit]
    return RedisFacts(
        version=str(oldest.get("redis_version", "0.0")),
        append_only=all(str(info.get("aof_enabled", 0)) == "1" for info in infos),
        may_evict=bool(evicting),
        policy=(evicting or policies)[0],
    )


def _infos(settings: RedisSettings) -> list[Mapping[str, object]]:
    """INFO of each server that holds data."""
    address = address_of(settings)
    given: dict[str, Any] = {"socket_timeout": settings.socket_timeout, "protocol": 2, **address.options}
    if address.topology is Topology.CLUSTER:
        given.pop("db", None)
        nodes = [ClusterNode(*node) for node in address.nodes]  # type: ignore[no-untyped-call]
        with redis.RedisCluster(startup_nodes=nodes, **given) as cluster:
            answers = cluster.info(target_nodes=redis.RedisCluster.PRIMARIES)
            return list(answers.values()) if "redis_version" not in answers else [answers]
    if address.topology is Topology.SENTINEL:
        secure = {name: value for name, value in given.items() if name.startswith(("ssl", "socket"))}
        sentinels = Sentinel(address.nodes, sentinel_kwargs=secure)  # type: ignore[no-untyped-call]
        host, port = sentinels.discover_master(address.service)  # type: ignore[no-untyped-call]
        with redis.Redis(host=host, port=int(port), **given) as primary:
            return [primary.info()]
    with redis.Redis.from_url(settings.url, **given) as server:
        return [server.info()]


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])
