"""Processes in milliseconds: a process that has imported everything forks the trainers, gateways and generators.

What it forks are processes like any other: own pid, own memory, killed by the kernel; only the imports are shared.
"""

from __future__ import annotations

import array
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).parents[2]
MESSAGE = 2**16
CHILDREN, LEARNING = "tests.chaos.children", "tests.chaos.learning"
_PR_SET_PDEATHSIG = 1


class Nursery:
    """Of those modules; use it as a context manager: at its end everything that it forked is killed."""

    def __init__(self, *modules: str) -> None:
        self._modules = modules

    def __enter__(self) -> Self:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, "-m", "tests.chaos.nursery", str(theirs.fileno()), *self._modules]
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("PAPA_", "PROM"))}
        environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(command, cwd=ROOT, env=environment, pass_fds=(theirs.fileno(),))
        theirs.close()
        assert self._socket.recv(MESSAGE) == b"ready"
        return self

    def __exit__(self, *raised: object) -> None:
        self._socket.close()
        self._process.wait(30)

    def fork(self, main: str, log: Path, environment: Mapping[str, str]) -> Child:
        """Runs `module:function` in a new process: standard error goes to `log`, standard output to a pipe."""
        reading, writing = os.pipe()
        with log.open("ab") as errors:
            request = json.dumps({"main": main, "environment": dict(environment)}).encode()
            socket.send_fds(self._socket, [request], [writing, errors.fileno()])
        os.close(writing)
        return Child(int(self._socket.recv(MESSAGE)), reading)


class Child:
    """A forked process, known by a pidfd, so that a pid that came back is never signalled."""

    def __init__(self, pid: int, output: int) -> None:
        self.pid = pid
        self.output = output
        try:
            self._pidfd: int | None = os.pidfd_open(pid)
        except ProcessLookupError:  # it has ended already
            self._pidfd = None

    @property
    def alive(self) -> bool:
        if self._pidfd is None:
            return False
        try:
            signal.pidfd_send_signal(self._pidfd, 0)  # type: ignore[arg-type]
        except ProcessLookupError:
            os.close(self._pidfd)
            self._pidfd = None
        return self._pidfd is not None

    def signal(self, number: signal.Signals) -> None:
        """Harmless when it has ended."""
        if self.alive and self._pidfd is not None:
            signal.pidfd_send_signal(self._pidfd, number)

    def close(self) -> None:
        """SIGKILL, and nothing is left open."""
        self.signal(signal.SIGKILL)
        os.close(self.output)
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None


def _fork(main: Any, environment: Mapping[str, str], output: int, errors: int, close: socket.socket) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        close.close()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.dup2(output, 1)
        os.dup2(errors, 2)
        os.environ.update(environment)
        code = main() or 0
        sys.stdout.flush()
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    os._exit(code)


def serve(control: socket.socket, modules: list[str]) -> None:
    """Forks on request until the other side is gone."""
    import importlib

    loaded = {name: importlib.import_module(name) for name in modules}
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps
    control.send(b"ready")
    while True:
        size = array.array("i").itemsize * 2
        request, fds, _, _ = socket.recv_fds(control, MESSAGE, size)
        if not request:
            return
        wanted = json.loads(request)
        module, _, function = wanted["main"].partition(":")
        pid = _fork(getattr(loaded[module], function), wanted["environment"], *fds, control)
        for fd in fds:
            os.close(fd)
        control.send(str(pid).encode())


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2:])
