"""`python -m tests.local.run_placeholder [APPLICATION]`: what `papa up` runs, with placeholder applications.

Prints one JSON line once everything runs.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import signal
import sys

from papa_serving.local.failure import Failure
from papa_serving.local.service import foreground_service
from papa_serving.local.startup_steps import StartupSteps
from papa_serving.local.stop_signals import Stopped
from papa_serving.settings import Settings
from rich.console import Console

PLACEHOLDER = "tests.local.placeholder_app:app"


def main(application: str) -> None:
    steps = StartupSteps(Console(stderr=True, width=200))
    applications = dict.fromkeys(("generator", "trainer"), application)
    with contextlib.suppress(Stopped), foreground_service(Settings(), steps, applications) as service:
        print(json.dumps({"address": service.address, "metrics": service.metrics}), flush=True)
        service.wait(lambda said: print(said, file=sys.stderr, flush=True))
    print("stopped", file=sys.stderr)


if __name__ == "__main__":
    faulthandler.register(signal.SIGUSR1)
    # Tests may run under nohup, which would have hang-ups ignored.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        main(*(sys.argv[1:] or [PLACEHOLDER]))
    except Failure as failure:
        sys.exit(failure.message)
