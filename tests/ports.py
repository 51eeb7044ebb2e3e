"""Ports for servers that must be told theirs: they cannot bind port 0, or have to come back at the same place."""

from __future__ import annotations

import random
import socket
from pathlib import Path

_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST = 20_000
"""Ray's workers take from 10002 to 19999, and a Ray does not start where one of its ports is among them."""


def free_port() -> int:
    """A port of loopback that nobody listens on.

    It lies below those that the kernel gives to outgoing connections and to whoever binds port 0, so that none of them
    takes it before the server does. Draws at random, so that tests in other processes do not get the same one.
    """
    beyond = int(_EPHEMERAL.read_text().split()[0])
    while True:
        port = random.SystemRandom().randrange(_LOWEST, beyond)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
