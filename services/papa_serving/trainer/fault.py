"""Named points at which a test makes the process kill itself, as a crash or a power cut would.

`TRAINER_FAULT` names one point: after_read (events are in memory), after_training (new weights exist in memory),
after_blob (the revision's files are written), before_commit (the commit is about to be sent), after_commit (it has
been answered). With `TRAINER_FAULT_MARKER`, a path, it happens once: the first process to arrive creates that file.
With `TRAINER_FAULT_SIGNAL=STOP` the process is suspended there instead, until somebody sends it SIGCONT.
"""

from __future__ import annotations

import os
import signal


def reach(point: str) -> None:
    """Kills or suspends this process when `point` is the one that the environment names; else does nothing."""
    if os.environ.get("TRAINER_FAULT") != point:
        return
    marker = os.environ.get("TRAINER_FAULT_MARKER")
    if marker is not None:
        try:
            os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
    stops = os.environ.get("TRAINER_FAULT_SIGNAL") == "STOP"
    os.kill(os.getpid(), signal.SIGSTOP if stops else signal.SIGKILL)
