"""The partition is one: while the cable is pulled nothing arrives, and once it is back what was sent does."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from tests.absent import reason
from tests.chaos.cable import Cable, unavailable
from tests.chaos.nursery import ROOT

ECHO = """
import socket, sys
from tests.chaos.cable import enter
enter(sys.argv[1])
with socket.create_connection((sys.argv[2], int(sys.argv[3])), timeout=30) as peer:
    while data := peer.recv(100):
        peer.sendall(data)
"""


def heard(peer: socket.socket, seconds: float) -> bytes:
    peer.settimeout(seconds)
    try:
        return peer.recv(100)
    except TimeoutError:
        return b""


@pytest.mark.skipif(bool(unavailable()), reason=reason(unavailable(), "sudo make test, with iproute2"))
def test_a_pulled_cable_parts_and_loses_nothing() -> None:
    with Cable() as cable, socket.create_server((cable.address, 0)) as server:
        port = str(server.getsockname()[1])
        with subprocess.Popen([sys.executable, "-c", ECHO, cable.namespace, cable.address, port], cwd=ROOT):
            peer, _ = server.accept()
            with peer:
                peer.sendall(b"before")
                assert heard(peer, 30) == b"before"
                cable.pull()
                peer.sendall(b"meanwhile")
                assert heard(peer, 0.5) == b""
                cable.plug()
                assert heard(peer, 30) == b"meanwhile"
