"""A trainer as a process of its own that a test may kill: `python -m tests.trainer.trainer_process`.

Settings come from PAPA_* variables. TEST_POISON names an event id: an update that contains it kills the process, as a
crash in native code would. TEST_SLOW: seconds that each update takes.
"""

import os
import signal
import time
from collections.abc import Sequence

from papa_serving import logs
from papa_serving.settings import Settings
from papa_serving.trainer.process import TrainerThread
from papa_serving.trainer.updater import UserUpdate

from tests.trainer.support import TallyUpdater


def during(updates: Sequence[UserUpdate]) -> None:
    events = {event.event_id for update in updates for event in update.batch.events}
    if os.environ.get("TEST_POISON") in events:
        os.kill(os.getpid(), signal.SIGKILL)
    print("training", flush=True)
    time.sleep(float(os.environ.get("TEST_SLOW", "0")))


def main() -> None:
    settings = Settings()
    logs.configure(settings.log)
    trainer = TrainerThread(settings, "trainer-process", TallyUpdater(during))
    signal.sigwait({signal.SIGTERM})
    trainer.stop(10.0)


if __name__ == "__main__":
    # Before any thread exists, so that all of them leave the signal to sigwait.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    main()
