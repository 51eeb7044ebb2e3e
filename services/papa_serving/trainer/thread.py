"""The loop in a thread of its own, so that whoever started it stays free to answer for its health."""

from __future__ import annotations

import asyncio
import logging
import os
import threading

from papa_serving.settings import Settings
from papa_serving.trainer.assembly import open_trainer
from papa_serving.trainer.loop import Backlog, TrainerLoop
from papa_serving.trainer.updater import Updater

_log = logging.getLogger(__name__)


class TrainerThread:
    """Runs the trainer until `stop`. When the loop ends for any other reason the process ends with it."""

    def __init__(self, settings: Settings, name: str, updater: Updater) -> None:
        self._settings = settings
        self._name = name
        self._updater = updater
        self._trainer: TrainerLoop | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="trainer-loop", daemon=True)
        self._thread.start()

    @property
    def serving(self) -> bool:
        """Whether it takes up work: not before the loop is there, and not from the moment that `stop` is called."""
        return self._trainer is not None and not self._stopping.is_set() and self._thread.is_alive()

    @property
    def backlog(self) -> Backlog:
        """What waits in this trainer's partitions, as last measured."""
        return self._trainer.backlog if self._trainer is not None else Backlog()

    def stop(self, timeout: float) -> bool:
        """Asks the loop to end and waits for it; whether it did within `timeout` seconds."""
        self._stopping.set()
        if self._loop is not None and self._trainer is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._trainer.stop)
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException:
            _log.critical("the trainer ended; the process ends as well so that it is started afresh", exc_info=True)
            logging.shutdown()
            os._exit(1)

    async def _main(self) -> None:
        async with open_trainer(self._settings, self._name, self._updater) as trainer:
            self._loop, self._trainer = asyncio.get_running_loop(), trainer
            if self._stopping.is_set():
                trainer.stop()
            await trainer.run()
