"""Turns the addresses that people write into gRPC targets and channel options."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from papa_serving.contracts.errors import InvalidRequest, Violation

Options = tuple[tuple[str, int], ...]

_RESOLVERS = re.compile(r"(?:dns|ipv4|ipv6|unix|unix-abstract|vsock|xds|google-c2p):", re.IGNORECASE)


def target_of(address: str) -> tuple[str, bool]:
    """The gRPC target of an address, and whether the address asks for TLS ("https://").

    Takes host:port, http://host:port, https://host:port, an IPv6 address in brackets, and gRPC's own schemes
    ("dns:///…", "unix:…"). Raises InvalidRequest that says how to write it instead.
    """
    scheme, mark, _ = address.partition("://")
    if mark and scheme.lower() in ("http", "https"):
        parts = urlsplit(address)
        if parts.path not in ("", "/") or parts.query or parts.fragment or "@" in parts.netloc or not parts.netloc:
            raise _bad(f"{scheme}://HOST:PORT and nothing behind it")
        return _with_port(parts.netloc), scheme.lower() == "https"
    if mark and not _RESOLVERS.match(address):
        raise _bad("HOST:PORT; only http:// and https:// may stand before it")
    return (address if _RESOLVERS.match(address) else _with_port(address)), False


def channel_options(target: str, options: Options = ()) -> Options:
    """The options of a channel to `target`. A target on this machine is never reached through a proxy.

    A caller reaches this machine by 0.0.0.0 and :: too, the addresses of a server that listens on all interfaces.
    """
    host = _host(target)
    here = is_loopback(target) or (isinstance(host, _ADDRESSES) and host.is_unspecified)
    return (*options, ("grpc.enable_http_proxy", 0)) if here else options


def is_loopback(target: str) -> bool:
    """Whether a target, or the host of a URL, is on this machine: 127.0.0.0/8, ::1, localhost, or a unix socket."""
    if target.lower().startswith(("unix:", "unix-abstract:")):
        return True
    host = _host(target)
    if isinstance(host, _ADDRESSES):
        return host.is_loopback
    return host == "localhost" or host.endswith(".localhost")


_ADDRESSES = (ipaddress.IPv4Address, ipaddress.IPv6Address)


def _host(target: str) -> str | ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The address of a target, or its name in lower case. An IPv4 address that IPv6 notation maps is that address."""
    authority = re.sub(r"^(?:dns|ipv4|ipv6):(?://[^/]*/)?", "", target, flags=re.IGNORECASE)
    host = authority[1:].partition("]")[0] if authority.startswith("[") else authority
    if host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host.lower().rstrip(".")
    return getattr(address, "ipv4_mapped", None) or address


def _with_port(authority: str) -> str:
    """Raises InvalidRequest unless the address is host:port. An IPv6 address must be in brackets."""
    host, colon, port = authority.rpartition(":")
    bare = host.startswith("[") and host.endswith("]")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise _bad("HOST:PORT, for instance 127.0.0.1:50051 or [::1]:50051")
    if (":" in host and not bare) or re.search(r"[\s/\\@]", host):
        raise _bad("HOST:PORT; an IPv6 address stands in brackets, for instance [::1]:50051")
    return authority


def _bad(form: str) -> InvalidRequest:
    return InvalidRequest([Violation("address", f"must read {form}")])
