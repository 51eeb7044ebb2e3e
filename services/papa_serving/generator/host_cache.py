"""Checked adapters in host memory. Callers that miss the same adapter share one load."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from papa_serving.contracts.identity import UserKey
from papa_serving.generator.job import AdapterKey, HostAdapter

Load = Callable[[AdapterKey], Awaitable[HostAdapter]]


class HostCache:
    """Holds at most `capacity` adapters; the least recently used one leaves. Belongs to one event loop."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._adapters: OrderedDict[AdapterKey, HostAdapter] = OrderedDict()
        self._loading: dict[AdapterKey, asyncio.Task[HostAdapter]] = {}

    def __len__(self) -> int:
        return len(self._adapters)

    def find(self, key: AdapterKey) -> HostAdapter | None:
        """The adapter if it is cached, else None."""
        adapter = self._adapters.get(key)
        if adapter is not None:
            self._adapters.move_to_end(key)
        return adapter

    async def load(self, key: AdapterKey, load: Load) -> HostAdapter:
        """Loads and keeps the adapter. Callers that arrive during the load wait for the same load.

        A waiter that is cancelled does not end the load for the others. Raises what `load` raises.
        """
        task = self._loading.get(key)
        if task is None:
            task = asyncio.ensure_future(self._fill(key, load))
            self._loading[key] = task
            task.add_done_callback(lambda done: self._loaded(key, done))
        return await asyncio.shield(task)

    def users(self) -> set[UserKey]:
        """The users with cached adapters."""
        return {key.user for key in self._adapters}

    def forget(self, user: UserKey) -> None:
        """Drops every revision of the user."""
        for key in [key for key in self._adapters if key.user == user]:
            del self._adapters[key]

    async def _fill(self, key: AdapterKey, load: Load) -> HostAdapter:
        adapter = await load(key)
        self._adapters[key] = adapter
        if len(self._adapters) > self._capacity:
            self._adapters.popitem(last=False)
        return adapter

    def _loaded(self, key: AdapterKey, task: asyncio.Task[HostAdapter]) -> None:
        del self._loading[key]
        if not task.cancelled():
            # Asked for, so that a failure whose waiters all went away is not reported as lost.
            task.exception()
