"""Deliberate defects, each a broken promise, so that a test can show that schedules and checker find them."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections import Counter
from collections.abc import Callable, Sequence

from papa_serving.contracts.feedback import AppendResult, FeedbackEvent, Lease, UserBatch
from papa_serving.contracts.identity import UserKey
from papa_serving.feedback import redis_append, redis_log
from papa_serving.feedback.redis_log import RedisFeedbackLog
from papa_serving.store.redis_client import call

from tests.chaos import updater
from tests.chaos.scripts import rewritten


def unfenced() -> None:
    """The commit trusts its caller: neither epoch nor parent nor the sequence numbers of the events is checked.

    Updates are given a seed of their own as well: with the real one a successor makes the very same revision, under the
    same name, and the second commit of it changes nothing.
    """
    _change_commit(_without_checks("fenced", "conflict", "stale"))
    updater.update_seed = lambda backbone, update: secrets.randbits(63)


def resurrecting() -> None:
    """The commit does not look for a tombstone, nor at what else would tell that the user is gone."""
    _change_commit(_without_checks("deleted", "fenced", "conflict", "stale"))


def forgetful() -> None:
    """The append does not remember event ids."""
    redis_append._APPEND = rewritten(
        redis_append._APPEND, lambda lua: lua.replace("said = said_here[event.id] or said", "said = nil")
    )


def hasty_gateway() -> None:
    """Acknowledges events before Redis has them."""
    real, last = RedisFeedbackLog.append, Counter[UserKey]()
    running = set[asyncio.Task[list[AppendResult]]]()

    async def append(self: RedisFeedbackLog, events: Sequence[FeedbackEvent]) -> list[AppendResult]:
        running.add(asyncio.create_task(real(self, events)))
        results = []
        for event in events:
            last[event.user] += 1
            results.append(AppendResult(event.event_id, last[event.user]))
        return results

    RedisFeedbackLog.append = append  # type: ignore[method-assign]


def hasty_trainer() -> None:
    """Removes events from the log when it begins to train on them, not when it commits."""
    real = RedisFeedbackLog.begin_attempt

    async def begin_attempt(self: RedisFeedbackLog, lease: Lease, batch: UserBatch) -> tuple[int, ...]:
        counts = await real(self, lease, batch)
        keys, entries = self._keys.user(batch.user), [event.entry_id for event in batch.events]
        await call(self._client, "XDEL", keys.partition.events, *entries)
        await call(self._client, "ZREM", keys.pending, *entries)
        return counts

    RedisFeedbackLog.begin_attempt = begin_attempt  # type: ignore[method-assign]
    _change_commit(_without_checks("stale"))


DEFECTS: dict[str, Callable[[], None]] = {
    defect.__name__: defect for defect in (unfenced, resurrecting, forgetful, hasty_gateway, hasty_trainer)
}


def break_on_purpose(name: str) -> None:
    """Installs a deliberate defect in this process; "" installs none."""
    if name:
        DEFECTS[name]()


def _without_checks(*answers: str) -> Callable[[str], str]:
    """commit.lua never gives these answers."""

    def change(lua: str) -> str:
        unchecked = re.sub(rf"return '({'|'.join(answers)})'", "do end", lua)
        return unchecked.replace("if count > 0 then", "if #oldest > 0 then")

    return change


def _change_commit(change: Callable[[str], str]) -> None:
    redis_log._COMMIT = rewritten(redis_log._COMMIT, change)
