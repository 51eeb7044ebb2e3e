"""Parses Redis URLs. A URL names one server, nodes of a Redis Cluster, or Sentinels that know the primary.

    redis://user:password@host:port/database       rediss:// speaks TLS, unix:///path is a socket
    redis+cluster://user:password@h1:p1,h2:p2      some of the nodes; the others are learnt from them
    redis+sentinel://user:password@h1:p1,h2:p2/service/database

rediss+cluster:// and rediss+sentinel:// use TLS for all of them. User and password are for the servers that hold the
data; Sentinels are asked without. Options follow as in a redis:// URL, for instance ?ssl_ca_certs=/path.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from redis import CredentialProvider
from redis.asyncio.connection import SSLConnection, parse_url
from typing_extensions import override

from papa_serving.settings import RedisSettings
from papa_serving.settings.secret_urls import joined, take_apart
from papa_serving.watched_file import current_secret

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
    arguments of a connection, including `ssl` for TLS. `url` is that of a single server.
    """

    topology: Topology
    nodes: tuple[tuple[str, int], ...]
    service: str
    options: Mapping[str, Any]
    url: str = ""


class FileCredentials(CredentialProvider):
    """User name, and a password that is read when a connection logs in, so that a replaced file is taken up."""

    def __init__(self, username: str, password: Callable[[], str]) -> None:
        self._username, self._password = username, password

    @override
    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        password = self._password()
        return (self._username, password) if self._username else (password,)

    @override
    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        return self.get_credentials()


def address_of(settings: RedisSettings) -> RedisAddress:
    """Reads `redis.url`, and the password that overrides it.

    Raises ValueError that says what is wrong, OSError for a password file that cannot be read.
    """
    url = settings.url
    if not url:
        raise ValueError("redis.url is empty: set PAPA_REDIS__URL, or let `papa up` start an embedded server")
    try:
        take_apart(url)
    except ValueError as error:
        raise ValueError(f"redis.url: {error}") from None
    login, url = _login(settings)
    scheme, _, topology = urlsplit(url).scheme.partition("+")
    if scheme == "unix" and not topology:
        return RedisAddress(Topology.SINGLE, (), "", login, url)
    if scheme not in ("redis", "rediss") or topology not in ("", *_PORTS):
        raise ValueError(
            f"redis.url begins with {urlsplit(url).scheme!r}, not with redis://, rediss://, unix://, "
            "redis+cluster:// or redis+sentinel://"
        )
    if not topology:
        return RedisAddress(Topology.SINGLE, (), "", login, url)
    return _of_many(url, scheme, Topology(topology), login)


def _login(settings: RedisSettings) -> tuple[dict[str, Any], str]:
    """Arguments of a connection that override those of the URL, and the URL.

    If a file holds the password, the URL is without its user name, which goes to the provider of credentials.
    """
    if settings.password is not None:
        return {"password": settings.password.get_secret_value()}, settings.url
    if settings.password_file is None:
        return {}, settings.url
    parts = urlsplit(settings.url)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    name = options.pop("username", "") or unquote(parts.netloc.rpartition("@")[0].partition(":")[0])
    options.pop("password", None)
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2], query=urlencode(options))
    credentials = FileCredentials(name, current_secret(None, settings.password_file))
    return {"credential_provider": credentials}, joined(bare)


def _of_many(url: str, scheme: str, topology: Topology, login: Mapping[str, Any]) -> RedisAddress:
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
    return RedisAddress(topology, nodes, service, {**options, **login})


def _node(netloc: str, port: int) -> tuple[str, int]:
    parts = urlsplit(f"//{netloc}")
    if not parts.hostname:
        raise ValueError(f"redis.url names a node without a host: {netloc!r}")
    return parts.hostname, parts.port or port
