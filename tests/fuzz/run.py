"""One worker: an engine, a gateway and a driver; and many of them side by side."""

from __future__ import annotations

import asyncio
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz.driver import Driver, Tally, engine
from tests.fuzz.target import Target, running

GROWTH = 256 * 2**20
"""Bytes by which a gateway may grow after its first tenth of the messages; caches and pools fill until then."""


@dataclass
class Outcome:
    """Of one worker. `memory` holds resident bytes of the gateway: warm, highest, last."""

    tally: Tally
    memory: tuple[int, int, int] = (0, 0, 0)
    faults: list[str] = field(default_factory=list)


class EngineThread:
    """The fake engine, on an event loop of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._engine = asyncio.run_coroutine_threadsafe(engine(), self._loop).result()
        # It keeps what it was asked, for other tests.
        self._engine.requests = self._engine.packed = self._engine.metadata = self._engine.timeouts = Nothing()
        self.address = f"127.0.0.1:{self._engine.port}"

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._engine.die(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Nothing(list):  # type: ignore[type-arg]
    """Forgets."""

    def append(self, _: object) -> None:
        """At once."""


def work(
    seed: str, wanted: int, number: int | None = None, progress: Callable[[int], None] = lambda _: None
) -> Outcome:
    """`wanted` messages, or the one call of that `number` again."""
    fake = EngineThread()
    try:
        with tempfile.TemporaryDirectory(prefix="papa-fuzz-") as place, running(Path(place), fake.address) as target:
            driver = Driver(seed, target.address)
            if number is not None:
                return Outcome(asyncio.run(driver.once(number)), faults=target.complaints())
            watch = Memory(target, wanted, progress)
            tally = asyncio.run(driver.run(wanted, watch))
            return Outcome(tally, watch.seen, faults(target, watch))
    finally:
        fake.stop()


def told(seed: str, wanted: int, worker: int) -> Outcome:
    """The same, with a line of progress every ten seconds."""
    begun = last = time.monotonic()

    def progress(sent: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= 10.0:
            last = now
            print(f"  gateway {worker}: {sent:>9,} sent, {sent / (now - begun):,.0f} a second", flush=True)

    return work(seed, wanted, progress=progress)


class Memory:
    """Looks at the gateway's memory while messages are sent."""

    def __init__(self, target: Target, wanted: int, progress: Callable[[int], None]) -> None:
        self._target, self._warm_at, self._progress = target, wanted // 10, progress
        self._next, self._warm, self._highest = 0.0, 0, 0

    def __call__(self, sent: int) -> None:
        now = time.monotonic()
        if now < self._next or not self._target.alive:
            return
        self._next = now + 0.2
        memory = self._target.memory()
        if not self._warm and sent >= self._warm_at:
            self._warm = memory
        self._highest = max(self._highest, memory)
        self._progress(sent)

    @property
    def seen(self) -> tuple[int, int, int]:
        last = self._target.memory() if self._target.alive else 0
        return self._warm or last, max(self._highest, last), last


def faults(target: Target, watch: Memory) -> list[str]:
    """The faults of a gateway during the run."""
    found = [] if target.alive else ["the gateway has died"]
    found += [f"it logged {line[:200]} … {line[-400:]}" for line in target.complaints()[:5]]
    found += [f"a path that nothing explains: {path}" for path in target.odd_paths()[:5]]
    warm, highest, _ = watch.seen
    if highest - warm > GROWTH:
        found.append(f"its memory grew from {warm / 2**20:.0f} to {highest / 2**20:.0f} MiB")
    return found
