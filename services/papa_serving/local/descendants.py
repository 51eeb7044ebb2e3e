"""Every process below this one."""

from __future__ import annotations

import contextlib
import os
import signal
from collections import defaultdict
from pathlib import Path


def descendants(root: int) -> list[int]:
    """The ids of the children of `root`, their children, and so on, as /proc has them; [] where there is no /proc."""
    children: dict[int, list[int]] = defaultdict(list)
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name, in parentheses, may hold anything; state and parent follow it.
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
    """SIGKILL to all of them."""
    for pid in descendants(os.getpid()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
