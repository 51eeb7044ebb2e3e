"""So that nothing outlives a launcher that is killed.

A child process runs this file first, which asks the kernel (Linux) to kill the process when the thread that started it
ends, and then becomes the wanted program. `subprocess`'s preexec_fn would do the same between fork and exec, where a
parent with gRPC's threads may crash the child.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1


def tied_to_parent(command: Sequence[str]) -> list[str]:
    """The command line that runs `command` under this rule; its process keeps its id."""
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *command]


def main(parent: int, command: Sequence[str]) -> None:
    """Becomes `command`, unless the parent has ended before the rule stood."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)
    os.execvp(command[0], list(command))  # noqa: S606 - the launcher's own command line


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
