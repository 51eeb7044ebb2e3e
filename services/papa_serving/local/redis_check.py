"""Checks that a Redis is fit to hold feedback: version, durability, eviction policy and access rights.

The rights are tested by use. Every command of the service and of its scripts is run on a key and a channel under the
service's own prefix that nothing else uses.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

import redis
from redis.cluster import ClusterNode
from redis.exceptions import NoPermissionError, RedisClusterException
from redis.sentinel import Sentinel

from papa_serving.local.failure import Failure
from papa_serving.settings import RedisSettings
from papa_serving.settings.secret_urls import MASK, shown, without_secret
from papa_serving.store.redis_address import Topology, address_of
from papa_serving.store.redis_keys import Keys

OLDEST = (6, 2)

RIGHTS = (
    "~{prefix}:* &{prefix}:* -@all +@read +@write -@dangerous +@connection +@pubsub +@scripting +info +time +cluster"
)
"""The rights that the service's user needs, as ACL SETUSER takes them. The Cluster client needs `cluster` for slots."""

COMMANDS: tuple[tuple[str, ...], ...] = (
    ("SET", "KEY", "1"),
    ("SETNX", "KEY", "1"),
    ("GET", "KEY"),
    ("EXISTS", "KEY"),
    ("PEXPIRE", "KEY", "60000"),
    ("PERSIST", "KEY"),
    ("UNLINK", "KEY"),
    ("HSET", "KEY", "f", "1"),
    ("HINCRBY", "KEY", "f", "1"),
    ("HGET", "KEY", "f"),
    ("HMGET", "KEY", "f"),
    ("HGETALL", "KEY"),
    ("HLEN", "KEY"),
    ("HEXISTS", "KEY", "f"),
    ("HSTRLEN", "KEY", "f"),
    ("HDEL", "KEY", "g"),
    ("RENAME", "KEY", "KEY"),
    ("UNLINK", "KEY"),
    ("ZADD", "KEY", "1", "m"),
    ("ZCARD", "KEY"),
    ("ZSCORE", "KEY", "m"),
    ("ZRANGE", "KEY", "0", "-1"),
    ("ZRANGEBYSCORE", "KEY", "0", "1"),
    ("ZRANGEBYLEX", "KEY", "-", "+"),
    ("ZREVRANGEBYSCORE", "KEY", "1", "0"),
    ("ZREMRANGEBYSCORE", "KEY", "2", "3"),
    ("ZREMRANGEBYRANK", "KEY", "5", "6"),
    ("ZREM", "KEY", "m"),
    ("UNLINK", "KEY"),
    ("XGROUP", "CREATE", "KEY", "g", "0", "MKSTREAM"),
    ("XADD", "KEY", "1-1", "f", "v"),
    ("XLEN", "KEY"),
    ("XRANGE", "KEY", "-", "+"),
    ("XTRIM", "KEY", "MAXLEN", "1"),
    ("XREAD", "COUNT", "1", "STREAMS", "KEY", "0"),
    ("XPENDING", "KEY", "g"),
    ("XCLAIM", "KEY", "g", "c", "0", "1-1"),
    ("XACK", "KEY", "g", "1-1"),
    ("XDEL", "KEY", "1-1"),
    ("UNLINK", "KEY"),
    ("TIME",),
    ("PUBLISH", "KEY", ""),
)
"""Every command of the service and of its Lua scripts, in an order in which all succeed; KEY is the probe key.

Without those of vector sets, which catalogues alone need and which many servers do not know.
"""


@dataclass(frozen=True)
class RedisFacts:
    """The checked properties of a server. `may_evict`: it has a memory limit and a policy other than noeviction."""

    version: str
    append_only: bool
    may_evict: bool
    policy: str


def check_redis(settings: RedisSettings) -> RedisFacts:
    """Returns the facts of the Redis at `settings.url`. If it is not fit, raises Failure with the way to mend it."""
    url = shown(settings.url)
    with _problems(settings, url):
        facts = _facts(settings)
    if _release(facts.version) < OLDEST:
        raise Failure(f"the Redis at {url} is version {facts.version}", "6.2 or newer is needed, or any Valkey")
    if settings.require_persistence and not facts.append_only:
        hint = "redis-cli CONFIG SET appendonly yes, or accept the loss with PAPA_REDIS__REQUIRE_PERSISTENCE=false"
        raise Failure(f"the Redis at {url} keeps no append-only file: a restart would lose likes", hint)
    if settings.require_persistence and facts.may_evict:
        hint = "redis-cli CONFIG SET maxmemory-policy noeviction"
        raise Failure(f"the Redis at {url} may evict likes (maxmemory-policy {facts.policy})", hint)
    with _problems(settings, url), _server(settings) as server:
        missing = _missing_right(server, settings.prefix)
    if missing:
        raise Failure(f"the user of the Redis at {url} may not {missing}", _grant(settings))
    return facts


@contextmanager
def _problems(settings: RedisSettings, url: str) -> Iterator[None]:
    """Turns errors of the block into a Failure that contains no secret."""
    try:
        yield
    except NoPermissionError as error:
        raise Failure(f"the user of the Redis at {url} lacks a right: {error}", _grant(settings)) from error
    except (redis.RedisError, RedisClusterException, ValueError, TypeError, OSError) as error:  # TypeError: an option
        why = without_secret(str(error), settings.url)
        if settings.password is not None and settings.password.get_secret_value():
            why = why.replace(settings.password.get_secret_value(), MASK)
        raise Failure(f"the Redis at {url} does not answer: {why}", "check --redis / PAPA_REDIS__URL") from None


def _grant(settings: RedisSettings) -> str:
    """The ACL command that grants the service's user its rights."""
    user = unquote(urlsplit(settings.url).username or "") or "default"
    return f"grant what is needed: ACL SETUSER {user} {RIGHTS.format(prefix=settings.prefix)}"


def _missing_right(server: Any, prefix: str) -> str:
    """The first right that this user lacks; "" when none is missing. The test leaves nothing behind."""
    keys = Keys(prefix, 1)
    user = keys.of_digest(secrets.token_hex(16))
    partition, key = user.partition, user.state
    script = "return redis.call('GET', KEYS[1])"
    sha1 = hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
    in_scripts = (("EVAL", script, "1", key), ("EVALSHA", sha1, "1", key))
    patterns = (
        keys.backbone,
        keys.partition_count,
        keys.members,
        partition.events,
        partition.dead,
        partition.users,
        partition.lease,
    )
    reached = [("EXISTS", each) for each in (*patterns, partition.call("check"), user.ids, user.item("check"))]
    of_key = [tuple(key if word == "KEY" else word for word in command) for command in COMMANDS]
    try:
        for command in (*of_key, *in_scripts, *reached):
            try:
                server.execute_command(*command)
            except NoPermissionError as error:
                return f"run {command[0]}: {error}"
            except redis.ResponseError:  # out of memory, for instance: no matter of rights
                continue
        return _missing_channel(server, key)
    finally:
        with suppress(redis.RedisError):
            server.execute_command("UNLINK", key)


def _missing_channel(server: Any, channel: str) -> str:
    with server.pubsub() as subscription:
        try:
            subscription.subscribe(channel)
            subscription.get_message(timeout=5.0)
            subscription.unsubscribe(channel)
        except NoPermissionError as error:
            return f"SUBSCRIBE to {channel}: {error}"
    return ""


def _facts(settings: RedisSettings) -> RedisFacts:
    """Reads INFO, because managed servers often refuse CONFIG. In a Cluster the worst primary counts."""
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
    """The INFO of each server that holds data."""
    with _server(settings) as server:
        if isinstance(server, redis.RedisCluster):
            answers = server.info(target_nodes=redis.RedisCluster.PRIMARIES)
            return list(answers.values()) if "redis_version" not in answers else [answers]
        return [server.info()]


@contextmanager
def _server(settings: RedisSettings) -> Iterator[Any]:
    """A client of the server, of the Cluster, or of the primary that Sentinels name."""
    address = address_of(settings)
    given: dict[str, Any] = {"socket_timeout": settings.socket_timeout, "protocol": 2, **address.options}
    if address.topology is Topology.CLUSTER:
        given.pop("db", None)
        nodes = [ClusterNode(*node) for node in address.nodes]  # type: ignore[no-untyped-call]
        with redis.RedisCluster(startup_nodes=nodes, **given) as cluster:
            yield cluster
    elif address.topology is Topology.SENTINEL:
        secure = {name: value for name, value in given.items() if name.startswith(("ssl", "socket"))}
        sentinels = Sentinel(address.nodes, sentinel_kwargs=secure)  # type: ignore[no-untyped-call]
        host, port = sentinels.discover_master(address.service)  # type: ignore[no-untyped-call]
        with redis.Redis(host=host, port=int(port), **given) as primary:
            yield primary
    else:
        with redis.Redis.from_url(address.url, **given) as server:
            yield server


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])
