"""Checks and reserves TCP ports."""

from __future__ import annotations

import errno
import socket
import time
from contextlib import ExitStack

from papa_serving.local.failure import Failure
from papa_serving.settings.addresses import host_port

_PAUSE = 0.1


def claim_port(host: str, port: int, setting: str, held: ExitStack | None = None) -> int:
    """Returns `port`, or a free port if it is 0. Raises Failure, naming the `setting`, when the port is in use.

    The port stays bound, without listening, until `held` closes. So no outgoing connection and no other program that
    asks for a free port can get it. A server that sets SO_REUSEADDR, as those of gRPC and Python do, can listen on it
    meanwhile, also after a restart.
    """
    with ExitStack() as stack:
        try:
            port = _bind(host, port, stack)
        except OSError as error:
            variable = f"PAPA_{setting.replace('.', '__').upper()}"
            hint = f"stop what listens there, or choose another: --set {setting}=0 or {variable}=0 takes a free one"
            raise Failure(f"port {port} of {host} cannot be used: {error.strerror or error}", hint) from error
        if held is not None:
            held.push(stack.pop_all())
        return port


def _bind(host: str, port: int, stack: ExitStack) -> int:
    """Binds the port on every address of the host: a server may listen on any of them. Raises OSError."""
    resolved = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    missing: OSError | None = None
    bound = port
    for family, kind, _, _, address in dict.fromkeys(resolved):
        probe = stack.enter_context(socket.socket(family, kind))
        # Closing connections of an earlier run do not make the port count as in use.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            probe.bind((address[0], bound, *address[2:]))
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL:
                raise
            missing = error  # a name may have an address that this machine does not have at the moment
        else:
            bound = int(probe.getsockname()[1])
    if not bound and missing:
        raise missing
    return bound


def check_generator(address: str, seconds: float = 5.0) -> None:
    """Raises Failure when nothing listens at gateway.generator. The gateway would notice only after a minute."""
    host, _, port = address.rpartition(":")
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=seconds).close()
        except (OSError, ValueError) as error:
            if isinstance(error, ConnectionRefusedError) and time.monotonic() < deadline:
                time.sleep(_PAUSE)  # Serve's proxy may still be on its way
                continue
            hint = "set gateway.generator to the host of Ray's head and the port of Serve's proxy (ray.serve_grpc_port)"
            raise Failure(
                f"no generator listens at {address}, where the gateway looks for it: {error}", hint
            ) from error
        return


def reachable(host: str, port: int) -> str:
    """The host:port at which this machine reaches a server, also when that listens on all interfaces."""
    on_all_interfaces = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - not bound
    return host_port(on_all_interfaces.get(host, host), port)
