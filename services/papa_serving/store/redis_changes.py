"""Change notifications: one subscription per process, shared by all watchers, that survives restarts of Redis."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from papa_serving.contracts.errors import StorageDamaged
from papa_serving.store.redis_client import cancellation_kept
from papa_serving.store.redis_replies import understood

LONGEST_SILENCE = 10.0
"""Seconds after which a watcher reads the state without a notification, because notifications can be lost."""

RECONNECT = 0.25
"""Seconds between attempts to subscribe again."""

_log = logging.getLogger(__name__)


class Change:
    """Notifies one watcher of changes."""

    def __init__(self) -> None:
        self._told = asyncio.Event()

    def tell(self) -> None:
        """Wakes the watcher."""
        self._told.set()

    async def wait(self) -> None:
        """Returns after a notification that came since the last wait, or after LONGEST_SILENCE."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._told.wait(), LONGEST_SILENCE)
        self._told.clear()


class ChangeFeed:
    """Notifies the watchers of a channel when something is published there.

    The confirmation of a subscription counts as a notification. So a watcher also reads changes from before the
    subscription, at the beginning and after a lost connection. The client must not retry by itself.
    """

    def __init__(self, client: Redis) -> None:
        self.closed = False
        self._client = client
        self._watchers: dict[str, set[Change]] = {}
        self._subscription: PubSub | None = None
        self._channels: set[str] = set()
        self._sending = asyncio.Lock()
        self._reader: asyncio.Task[None] | None = None
        self._interrupted = False

    @asynccontextmanager
    async def listen(self, channel: str) -> AsyncIterator[Change]:
        """Subscribes to `channel` within the block and gives the Change to wait for."""
        change = Change()
        self._watchers.setdefault(channel, set()).add(change)
        if self._reader is None:
            self._reader = asyncio.create_task(self._read_for_ever())
        try:
            await self._subscribe(channel)
            yield change
        finally:
            self._watchers[channel].discard(change)
            if not self._watchers[channel]:
                del self._watchers[channel]
                await self._unsubscribe(channel)

    async def close(self) -> None:
        """Wakes every watcher for a last time and ends the subscription."""
        self.closed = True
        for changes in self._watchers.values():
            for change in changes:
                change.tell()
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)
        await self._client.aclose()

    async def _subscribe(self, channel: str) -> None:
        async with self._sending:
            if self._subscription is not None and channel not in self._channels:
                self._channels.add(channel)
                with suppress(RedisError):  # the reader meets the same lost connection and subscribes to all again
                    await self._subscription.subscribe(channel)

    async def _unsubscribe(self, channel: str) -> None:
        if not self._watchers and self._reader is not None:
            self._reader.cancel()
            self._reader = None
            return
        async with self._sending:
            if self._subscription is not None and channel not in self._watchers:
                self._channels.discard(channel)
                with suppress(RedisError):
                    await self._subscription.unsubscribe(channel)

    async def _read_for_ever(self) -> None:
        while True:
            try:
                await self._read_until_lost()
            except (RedisError, OSError, StorageDamaged) as error:
                if not self._interrupted:
                    _log.warning("change notifications interrupted: %s", error)
                self._interrupted = True
            await asyncio.sleep(RECONNECT)

    async def _read_until_lost(self) -> None:
        async with self._client.pubsub() as subscription:
            try:
                async with self._sending:
                    self._subscription, self._channels = subscription, set(self._watchers)
                    await subscription.subscribe(*self._channels)
                self._interrupted = False
                while True:
                    with cancellation_kept(), understood():
                        self._pass_on(await subscription.get_message(timeout=None))
            finally:
                if self._subscription is subscription:
                    self._subscription = None

    def _pass_on(self, message: dict[str, object] | None) -> None:
        if message is None or message["type"] not in ("subscribe", "message"):
            return
        channel = message["channel"]
        assert isinstance(channel, bytes)
        for change in self._watchers.get(channel.decode(), ()):
            change.tell()
