"""Child processes: starts Python safely, keeps a process running, and finds all descendants of this one."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from papa_serving.local.parent_death import tied_to_parent

_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 10.0
_STABLE_SECONDS = 30.0


class SupervisedProcess:
    """Runs `command` in a session of its own, so that a terminal's Ctrl-C reaches it only through stop().

    Its output is appended to `log`. When the process dies it is restarted after a pause. The pause doubles up to ten
    seconds and is reset once the process has lived for half a minute.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self._command, self._environment, self._log = command, environment, log
        self._stopping = threading.Event()
        self._started = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._supervise, name=f"supervise {command[-1]}", daemon=True)
        self.restarts = 0

    def __enter__(self) -> Self:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        self._thread.start()
        self._started.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The id of the newest process; 0 when it could not be started."""
        return self._process.pid if self._process else 0

    def stop(self, grace: float = 60.0) -> None:
        """Sends SIGTERM, waits `grace` seconds, then sends SIGKILL. Harmless when the process has ended."""
        self._stopping.set()
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(grace)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._thread.join()

    def kill(self) -> None:
        """Sends SIGKILL and does not restart the process."""
        self._stopping.set()
        if self._process is not None:
            self._process.kill()

    def _supervise(self) -> None:
        """Starts the child from this thread, because the child ends with the thread that started it."""
        pause = _FIRST_PAUSE
        while not self._stopping.is_set():
            started = time.monotonic()
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(
                    tied_to_parent(self._command),
                    env=dict(self._environment),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            self._started.set()
            self._process.wait()
            pause = _FIRST_PAUSE if time.monotonic() - started > _STABLE_SECONDS else min(2 * pause, _LONGEST_PAUSE)
            if not self._stopping.wait(pause):
                self.restarts += 1


def python_module(name: str, *arguments: str) -> list[str]:
    """The command that runs a module. `-P` keeps the working folder off its path: a `redis.py` may lie there."""
    return [sys.executable, "-P", "-m", name, *arguments]


def python_program(text: str, *arguments: str) -> list[str]:
    """The command that runs a program given as text."""
    return [sys.executable, "-P", "-c", text, *arguments]


def descendants(root: int) -> list[int]:
    """The process ids of all descendants of `root`, read from /proc; [] on a system without /proc."""
    children: dict[int, list[int]] = defaultdict(list)
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name is in parentheses and may contain anything. State and parent follow it.
            parent = status.read_text().rpartition(")")[2].split()[1]
            children[int(parent)].append(int(status.parent.name))
    found: list[int] = []
    unseen = [root]
    while unseen:
        below = children[unseen.pop()]
        found += below
        unseen += below
    return found


def kill_descendants() -> None:
    """Sends SIGKILL to all descendants of this process."""
    for pid in descendants(os.getpid()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
