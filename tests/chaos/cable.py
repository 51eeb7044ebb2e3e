"""A real partition: processes in a network namespace of their own, and a cable to it that can be pulled.

Needs root and iproute2 on Linux; `unavailable` says what is missing, and the proxy stands in then.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from functools import cache
from itertools import count
from pathlib import Path
from typing import Self

_CLONE_NEWNET = 0x40000000
_numbers = count()


class Cable:
    """A pair of virtual Ethernet devices, one end here, one in the namespace; use it as a context manager.

    While it is pulled packets vanish in both directions and nobody is told; once it is back TCP sends them again.
    """

    def __init__(self) -> None:
        number = next(_numbers)
        self.namespace = f"papa-{os.getpid()}-{number}"
        self._device = f"pp{os.getpid() % 10**7}x{number % 10**4}"
        block = (os.getpid() * 251 + number) % 2**14
        net = f"10.{200 + block // 2**12}.{block // 2**6 % 2**6}.{block % 2**6 * 4}".rpartition(".")
        self.address, self._theirs = f"{net[0]}.{int(net[2]) + 1}", f"{net[0]}.{int(net[2]) + 2}"

    def __enter__(self) -> Self:
        _ip("netns", "add", self.namespace)
        try:
            _ip("link", "add", self._device, "type", "veth", "peer", "name", "eth0", "netns", self.namespace)
            _ip("addr", "add", f"{self.address}/30", "dev", self._device)
            _ip("-n", self.namespace, "addr", "add", f"{self._theirs}/30", "dev", "eth0")
            for name in ("eth0", "lo"):
                _ip("-n", self.namespace, "link", "set", name, "up")
            self.plug()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *raised: object) -> None:
        _ip("netns", "del", self.namespace)

    def pull(self) -> None:
        """Blocks all traffic."""
        _ip("link", "set", self._device, "down")

    def plug(self) -> None:
        """Harmless when it is plugged."""
        _ip("link", "set", self._device, "up")


def enter(namespace: str) -> None:
    """Moves this process, which has one thread, into the namespace."""
    with (Path("/run/netns") / namespace).open() as file:
        library = ctypes.CDLL(None, use_errno=True)
        if library.setns(file.fileno(), _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"cannot enter {namespace}")


@cache
def unavailable() -> str:
    """Why there can be no cable on this machine; "" when there can."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "iproute2 is not installed"
    try:
        with Cable():
            return ""
    except subprocess.CalledProcessError as error:
        return f"network namespaces: {error.stderr.strip()}"


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)
