"""`python -m tests.local.run_placeholder [APPLICATION]`: what `papa up` runs, with placeholder applications.

Prints one JSON line once everything runs.
"""

from __future__ import annotations

import contextlib
import json
import sys

from rich.console import Console

from services.local.failure import Failure
from services.local.service import foreground_service
from services.local.startup_steps import StartupSteps
from services.local.stop_signals import Stopped
from services.settings import Settings

PLACEHOLDER = "tests.local.placeholder_app:app"


def main(application: str) -> None:
    steps = StartupSteps(Console(stderr=True, width=200))
    applications = dict.fromkeys(("generator", "trainer"), application)
    with contextlib.suppress(Stopped), foreground_service(Settings(), steps, applications) as service:
        print(json.dumps({"address": service.address, "metrics": service.metrics}), flush=True)
        service.wait()
    print("stopped", file=sys.stderr)


if __name__ == "__main__":
    try:
        main(*(sys.argv[1:] or [PLACEHOLDER]))
    except Failure as failure:
        sys.exit(failure.message)
