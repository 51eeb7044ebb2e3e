"""A deleted user's adapters leave the caches, also when nobody asks for that user again."""

from __future__ import annotations

import asyncio
import logging

from papa_serving.contracts.errors import PapaError, UserDeleted
from papa_serving.contracts.revisions import UserDirectory
from papa_serving.generator.adapters import Adapters

_log = logging.getLogger(__name__)


async def forget_deleted_users(users: UserDirectory, adapters: Adapters, every: float) -> None:
    """Asks for each cached user about every `every` seconds, evenly spread; runs until it is cancelled."""
    while True:
        try:
            await _ask_for_each(users, adapters, every)
        except PapaError as error:
            _log.warning("the caches could not be checked for deleted users", extra={"detail": error.message})
            await asyncio.sleep(every)


async def _ask_for_each(users: UserDirectory, adapters: Adapters, seconds: float) -> None:
    cached = adapters.users()
    pause = seconds / max(1, len(cached))
    for user in cached:
        await asyncio.sleep(pause)
        try:
            await users.current(user)
        except UserDeleted:
            adapters.forget(user)
            _log.info("a deleted user's adapters left the caches", extra={"user_digest": user.digest})
    if not cached:
        await asyncio.sleep(pause)
