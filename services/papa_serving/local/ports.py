"""TCP ports: which are taken, and free ones."""

from __future__ import annotations

import socket
import time

from papa_serving.local.failure import Failure

_PAUSE = 0.1


def claim_port(host: str, port: int, setting: str) -> int:
    """`port`, or a free one where it is 0. Raises Failure, naming the `setting`, when something listens there already.

    The port is not held: whoever is to listen binds it soon after.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # Connections of an earlier run that are still closing do not count as "in use".
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            variable = f"PAPA_{setting.replace('.', '__').upper()}"
            hint = f"stop what listens there, or choose another: --set {setting}=0 or {variable}=0 takes a free one"
            raise Failure(f"port {port} of {host} cannot be used: {error.strerror}", hint) from error
        return int(probe.getsockname()[1])


def check_generator(address: str, seconds: float = 5.0) -> None:
    """Raises Failure when nothing listens at gateway.generator, which the gateway would only find after a minute."""
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
    """host:port at which this machine reaches a server that may listen on all interfaces."""
    return f"127.0.0.1:{port}" if host in ("0.0.0.0", "::", "[::]", "") else f"{host}:{port}"  # noqa: S104 - not bound
