"""Parses Redis URLs. A URL names one server, nodes of a Redis Cluster, or Sentinels that know the primary.

    redis://user:password@host:port/database       rediss:// speaks TLS, unix:///path is a socket
    redis+cluster://user:password@h1:p1,h2:p2      some of the nodes; the others are learnt from them
    redis+sentinel://user:password@h1:p1,h2:p2/service/database

rediss+cluster:// and rediss+sentinel:// use TLS for all of them. User and password are for the servers that hold the
data; Sentinels are asked without. Options follow as in a redis:// URL, for instance ?ssl_ca_certs=/path.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

from redis.asyncio.connection import SSLConnection, parse_url

from papa_serving.settings import RedisSettings
from papa_serving.settings.secret_urls import take_apart

_PORTS = {"cluster": 6379, "sentinel": 26379}


class Topology(StrEnum):
    """How the servers that hold the data are found."""

    SINGLE = "single"
    CLUSTER = "cluster"
    SENTINEL = "sentinel"


@dataclass(frozen=True)
class RedisAddress:
    """A parsed URL.

    `nodes` are Cluster nodes or Sentinels, `service` is the Sentinels' name for the primary, and `options` are keyword
    arguments of a connection, including `ssl` for TLS.
    """

    topology: Topology
    nodes: tuple[tuple[str, int], ...]
    service: str
    options: Mapping[str, Any]


def address_of(settings: RedisSettings) -> RedisAddress:
    """Reads `redis.url`, and the password that overrides it. Raises ValueError that says what is wrong."""
    url = settings.url
    if not url:
        raise ValueError("redis.url is empty: set PAPA_REDIS__URL, or let `papa up` start an embedded server")
    try:
        take_apart(url)
    except ValueError as error:
        raise ValueError(f"redis.url: {error}") from None
    password = {} if settings.password is None else {"password": settings.password.get_secret_value()}
    scheme, _, topology = urlsplit(url).scheme.partition("+")
    if scheme == "unix" and not topology:
        return RedisAddress(Topology.SINGLE, (), "", password)
    if scheme not in ("redis", "rediss") or topology not in ("", *_PORTS):
        raise ValueError(
            f"redis.url begins with {urlsplit(url).scheme!r}, not with redis://, rediss://, unix://, "
            "redis+cluster:// or redis+sentinel://"
        )
    if not topology:
        return RedisAddress(Topology.SINGLE, (), "", password)
    return _of_many(url, scheme, Topology(topology), password)


def _of_many(url: str, scheme: str, topology: Topology, password: Mapping[str, str]) -> RedisAddress:
    parts = urlsplit(url)
    credentials, at, hosts = parts.netloc.rpartition("@")
    nodes = tuple(_node(netloc, _PORTS[topology]) for netloc in hosts.split(","))
    service, _, database = parts.path.strip("/").partition("/")
    if topology is Topology.SENTINEL and not service:
        raise ValueError("redis.url names no service: redis+sentinel://host:port/SERVICE")
    if topology is Topology.CLUSTER and service not in ("", "0"):
        raise ValueError("redis.url names a database, but Redis Cluster has only one")
    like = parts._replace(scheme=scheme, netloc=f"{credentials}{at}placeholder", path=f"/{database}")
    options = dict(parse_url(like.geturl()))
    options.pop("host", None)
    if options.pop("connection_class", None) is SSLConnection:
        options["ssl"] = True
    return RedisAddress(topology, nodes, service, {**options, **password})


def _node(netloc: str, port: int) -> tuple[str, int]:
    parts = urlsplit(f"//{netloc}")
    if not parts.hostname:
        raise ValueError(f"redis.url names a node without a host: {netloc!r}")
    return parts.hostname, parts.port or port
