"""The processes of a schedule: the product's own mains, with a small update instead of the real one.

CHAOS_CLOCK, a path: a file that holds by how many seconds this process's clock is wrong (services read time.time).
CHAOS_NAMESPACE: the network namespace that it lives in (tests.chaos.cable).
CHAOS_BREAK: the name of a deliberate defect (tests.chaos.defects), for the tests of the checker itself.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.chaos.scripts import step_every_script

step_every_script()

import papa_serving.feedback.redis_log  # noqa: E402 - what is imported before the fork need not be after it
import papa_serving.store.file_revisions  # noqa: E402
import papa_serving.store.redis_items  # noqa: E402
import papa_serving.store.redis_users  # noqa: E402, F401
from papa_serving import logs  # noqa: E402 - the scripts load when these are imported
from papa_serving.gateway.__main__ import main as gateway_main  # noqa: E402
from papa_serving.settings import Settings  # noqa: E402
from papa_serving.trainer.process import TrainerThread  # noqa: E402
from papa_serving.trainer.updater import Updater  # noqa: E402

from tests.chaos.cable import enter  # noqa: E402
from tests.chaos.defects import break_on_purpose  # noqa: E402
from tests.chaos.updater import ChaosUpdater  # noqa: E402


def trainer() -> None:
    """A trainer until SIGTERM."""
    run_trainer(ChaosUpdater())


def run_trainer(updater: Updater) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    prepare()
    settings = Settings()
    logs.configure(settings.log)
    thread = TrainerThread(settings, "chaos", updater)
    signal.sigwait({signal.SIGTERM})
    thread.stop(10.0)


def gateway() -> int:
    """The gateway's own main."""
    prepare()
    return gateway_main(Settings())


def prepare() -> None:
    """The network, the clock and the defect that the environment asks for."""
    if namespace := os.environ.get("CHAOS_NAMESPACE"):
        enter(namespace)
    step_clock()
    break_on_purpose(os.environ.get("CHAOS_BREAK", ""))


def step_clock() -> None:
    """From now on time.time() is wrong by what the file says, for the product's own modules: grpc computes what is left
    of a call's deadline with it as well, from a clock that no step has reached."""
    if not (path := os.environ.get("CHAOS_CLOCK")):
        return
    stepped = SteppedTime(Path(path))
    for name, module in list(sys.modules.items()):
        if name.startswith("papa_serving.") and getattr(module, "time", None) is time:
            module.time = stepped  # type: ignore[attr-defined]


class SteppedTime(ModuleType):
    """The module `time`, wrong by what the file says."""

    def __init__(self, file: Path) -> None:
        super().__init__("time")
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    def time(self) -> float:
        return time.time() + float(self._file.read_text() or 0)
