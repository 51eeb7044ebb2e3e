"""Finds and masks the secrets of a URL: the password before the host, and options such as ?password=.

All code that shows, stores or sends a URL uses this module. An ambiguous URL (a password with an unescaped `/`, `?` or
`#`) is masked as a whole, because any part of it may be the secret.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

MASK = "*" * 10

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*", re.IGNORECASE)
_HOST = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^\s:@/?#\[\],]+)(:\d{1,5})?")
_DATABASE = re.compile(r"/*\d*/?")
_HARMLESS = frozenset(
    (
        "username",
        "db",
        "client_name",
        "protocol",
        "timeout",
        "max_connections",
        "health_check_interval",
        "retry_on_timeout",
        "socket_timeout",
        "socket_connect_timeout",
        "socket_keepalive",
        "ssl_ca_certs",
        "ssl_ca_path",
        "ssl_certfile",
        "ssl_keyfile",
        "ssl_cert_reqs",
        "ssl_check_hostname",
        "ssl_ciphers",
        "ssl_min_version",
    )
)
"""Options that are never secret. All others may be, for instance `password` and `ssl_password`."""


@dataclass(frozen=True)
class SecretUrl:
    """A URL whose secrets are separated.

    `bare` is the URL without its secrets; it keeps the user name. `options` are the secret options of the query.
    """

    bare: str
    password: str
    options: tuple[tuple[str, str], ...]

    @property
    def has_secret(self) -> bool:
        """Whether the URL contained a secret."""
        return bool(self.password or self.options)


def take_apart(url: str) -> SecretUrl:
    """Separates a URL from its secrets. Raises ValueError, without quoting the URL, if it is ambiguous."""
    parts = _split(url)
    if parts is None:
        raise ValueError("not understood: write @ : / ? # and % in a password as %40 %3A %2F %3F %23 and %25")
    harmless, secret = _options(parts)
    user, colon, password = parts.netloc.rpartition("@")[0].partition(":")
    hosts = parts.netloc.rpartition("@")[2]
    bare = parts._replace(netloc=f"{user}@{hosts}" if user else hosts, query=urlencode(harmless, safe="/:,"))
    of_query = [value for name, value in secret if name == "password"]
    others = tuple((name, value) for name, value in secret if name != "password")
    return SecretUrl(joined(bare) if colon or secret else url, unquote(password) or next(iter(of_query), ""), others)


def with_options(url: str, options: tuple[tuple[str, str], ...]) -> str:
    """Adds these options to the query of the URL."""
    parts = urlsplit(url)
    return joined(parts._replace(query="&".join(filter(None, (parts.query, urlencode(options)))))) if options else url


def joined(parts: SplitResult) -> str:
    """The URL of these parts. Unlike `geturl`, it keeps the `//` of unix:///path, which Redis clients insist on."""
    url, start = parts.geturl(), f"{parts.scheme}:"
    return url if parts.netloc or url.startswith(f"{start}//") else f"{start}//{url.removeprefix(start)}"


def shown(url: str) -> str:
    """The URL with its secrets masked; "" stays ""."""
    parts = _split(url)
    if parts is None:
        scheme, mark, _ = url.partition("://")
        return f"{scheme}://{MASK}" if mark and _SCHEME.fullmatch(scheme) else MASK if url else ""
    harmless, secret = _options(parts)
    user, colon, _ = parts.netloc.rpartition("@")[0].partition(":")
    hosts = parts.netloc.rpartition("@")[2]
    if colon:
        hosts = f"{user}:{MASK}@{hosts}"
    elif user:
        hosts = f"{MASK}@{hosts}"  # a password whose colon was forgotten looks like a user name
    query = "&".join([urlencode(harmless, safe="/:,"), *(f"{name}={MASK}" for name, _ in secret)]).strip("&")
    masked = joined(parts._replace(netloc=hosts, query=query))
    return masked if colon or user or secret else url


def without_secret(text: str, url: str) -> str:
    """Masks all secrets of `url` in a message, for instance in the error of a library."""
    parts = _split(url)
    if parts is None:
        return text.replace(url, shown(url)) if url else text
    user, colon, password = parts.netloc.rpartition("@")[0].partition(":")
    before_host = password if colon else user  # a password whose colon was forgotten looks like a user name
    names = {name for name, _ in _options(parts)[1]}
    as_written = [value for name, _, value in (each.partition("=") for each in parts.query.split("&")) if name in names]
    of_query = [value for name, value in _options(parts)[1]]
    secrets = {before_host, unquote(before_host), *as_written, *of_query}
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, MASK)
    return text


def _split(url: str) -> SplitResult | None:
    """The parts of the URL; None if it is ambiguous."""
    scheme, mark, _ = url.partition("://")
    if not mark or not _SCHEME.fullmatch(scheme):
        return None
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    hosts = parts.netloc.rpartition("@")[2]
    in_doubt = (
        parts.fragment
        or "@" in parts.path
        or (scheme.lower() in ("redis", "rediss") and not _DATABASE.fullmatch(parts.path))
        or not all(_HOST.fullmatch(each) for each in hosts.split(",") if hosts)
        or not all("=" in option for option in parts.query.split("&") if option)
        or any("@" in value for name, value in parse_qsl(parts.query) if name not in (*_HARMLESS, "password"))
    )
    return None if in_doubt else parts


def _options(parts: SplitResult) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """The harmless and the secret options of the query."""
    options = parse_qsl(parts.query, keep_blank_values=True)
    return [each for each in options if each[0] in _HARMLESS], [each for each in options if each[0] not in _HARMLESS]
