"""The one thread in which tensors are computed, beside the loop that renews the leases."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class Worker:
    """Runs calls one after another in a thread of its own.

    It is always the same thread, because torch keeps a pool of helper threads per computing thread. It is a daemon,
    because a graceful stop abandons an update that takes too long and the process must not wait for it.
    """

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="trainer-worker", daemon=True).start()

    async def run(self, call: Callable[..., T], *arguments: object) -> T:
        """`call(*arguments)`, its result or its exception. Cancelling leaves the call running and drops its result."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def work() -> None:
            try:
                outcome = call(*arguments)
            except BaseException as error:
                _tell(loop, _fail, future, error)
            else:
                _tell(loop, _succeed, future, outcome)

        self._calls.put(work)
        return await future

    def _work(self) -> None:
        while True:
            self._calls.get()()


def _tell(loop: asyncio.AbstractEventLoop, how: Callable[..., None], *arguments: object) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(how, *arguments)


def _succeed(future: asyncio.Future[T], outcome: T) -> None:
    if not future.done():
        future.set_result(outcome)


def _fail(future: asyncio.Future[T], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
