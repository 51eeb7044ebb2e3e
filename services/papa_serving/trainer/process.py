"""Runs a trainer in this process: checks and opens the stores, and runs the loop in its own thread.

The calling thread stays free to answer health checks.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from papa_serving.contracts.errors import StorageDamaged, StorageUnavailable
from papa_serving.feedback import open_log
from papa_serving.settings import Settings
from papa_serving.store import open_items, open_revisions, open_users, records
from papa_serving.store.census import refuse_emptied
from papa_serving.trainer.loop import Backlog, TrainerLoop
from papa_serving.trainer.updater import Updater

_log = logging.getLogger(__name__)

_STORAGE_PAUSE = 1.0
"""Seconds between two attempts to reach Redis."""


async def check_backbone(settings: Settings, backbone_hash: str) -> None:
    """Waits for Redis. Raises ValueError when it was emptied, or when its adapters belong to another backbone;
    StorageDamaged when what it answers cannot be understood."""
    items, users = open_items(settings), open_users(settings)
    try:
        while True:
            try:
                await refuse_emptied(items, users, open_revisions(settings))
                announced = await items.backbone_info()
            except StorageDamaged:
                raise
            except StorageUnavailable as error:
                _log.warning("waiting for Redis: %s", error)
                await asyncio.sleep(_STORAGE_PAUSE)
            else:
                break
    finally:
        await items.close()
        await users.close()
    if announced is not None:
        records.check_backbone(announced, settings.backbone, backbone_hash)


@asynccontextmanager
async def open_trainer(settings: Settings, name: str, updater: Updater) -> AsyncIterator[TrainerLoop]:
    """Returns a loop that is ready to run. Its member name begins with `name` and is unique to this process."""
    log, users = open_log(settings), open_users(settings)
    member = f"{name}-{secrets.token_hex(4)}"
    try:
        yield TrainerLoop(member, log, users, open_revisions(settings), updater, settings.trainer)
    finally:
        await log.close()
        await users.close()


class TrainerThread:
    """Runs the trainer until `stop`. If the loop ends for any other reason, so does the process."""

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
        """Whether the trainer takes work: from the creation of the loop until `stop` is called."""
        return self._trainer is not None and not self._stopping.is_set() and self._thread.is_alive()

    @property
    def backlog(self) -> Backlog:
        """The last measured backlog of this trainer's partitions."""
        return self._trainer.backlog if self._trainer is not None else Backlog()

    def stop(self, timeout: float) -> bool:
        """Asks the loop to end and waits for it; returns whether it ended within `timeout` seconds."""
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
