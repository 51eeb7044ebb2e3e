"""The room put together from the settings, without knowing how learning is done."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from papa_serving.contracts.errors import StorageUnavailable
from papa_serving.feedback import open_log
from papa_serving.settings import Settings
from papa_serving.store import open_items, open_revisions, open_users
from papa_serving.store.census import refuse_emptied
from papa_serving.trainer.loop import TrainerLoop
from papa_serving.trainer.updater import Updater

_log = logging.getLogger(__name__)

_STORAGE_PAUSE = 1.0


async def check_backbone(settings: Settings, backbone: str) -> None:
    """Waits for Redis. Raises ValueError when it was emptied, or when its adapters belong to another backbone."""
    items, users = open_items(settings), open_users(settings)
    try:
        while True:
            try:
                await refuse_emptied(items, users, open_revisions(settings))
                announced = await items.backbone()
            except StorageUnavailable as error:
                _log.warning("waiting for Redis: %s", error)
                await asyncio.sleep(_STORAGE_PAUSE)
            else:
                break
    finally:
        await items.close()
        await users.close()
    if announced is not None and announced.backbone != backbone:
        raise ValueError(
            f"the adapters in this store belong to the backbone {announced.name} ({announced.backbone[:12]}), "
            f"not to {settings.backbone} ({backbone[:12]})"
        )


@asynccontextmanager
async def open_trainer(settings: Settings, name: str, updater: Updater) -> AsyncIterator[TrainerLoop]:
    """A loop that is ready to run. Its member's name begins with `name` and is this process's alone."""
    log, users = open_log(settings), open_users(settings)
    member = f"{name}-{secrets.token_hex(4)}"
    try:
        yield TrainerLoop(member, log, users, open_revisions(settings), updater, settings.trainer)
    finally:
        await log.close()
        await users.close()
