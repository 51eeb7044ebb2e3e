"""Ends child processes when their launcher is killed.

A child process runs this file first. It asks the kernel (Linux) to kill the process when the thread that started it
ends, and then replaces itself by the wanted program. `subprocess`'s preexec_fn would run this code between fork and
exec, where the threads of gRPC in the parent may crash the child.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1


def tied_to_parent(command: Sequence[str]) -> list[str]:
    """The command line that runs `command` so that it ends with this process. The process id stays the same."""
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *command]


def main(parent: int, command: Sequence[str]) -> None:
    """Replaces this process by `command`, unless the parent has already ended."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)
    os.execvp(command[0], list(command))  # noqa: S606 - the launcher's own command line


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
