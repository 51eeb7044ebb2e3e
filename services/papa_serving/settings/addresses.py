"""Addresses to listen on: hosts, the notation host:port, and the error for one that is not free."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator


def _bare(host: str) -> str:
    """Removes the brackets that an IPv6 address has in a URL."""
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


Host = Annotated[str, AfterValidator(_bare)]
"""A name or address of this machine. An IPv6 address may be in brackets."""


def host_port(host: str, port: int) -> str:
    """Returns host:port, with an IPv6 address in brackets as gRPC and URLs need it."""
    bare = _bare(host)
    return f"[{bare}]:{port}" if ":" in bare else f"{bare}:{port}"


class CannotBind(OSError):
    """The address is in use, or does not belong to this machine."""

    def __init__(self, purpose: str, host: str, port: int) -> None:
        super().__init__(f"cannot listen on {host_port(host, port)} for {purpose}: another process may hold the port")
