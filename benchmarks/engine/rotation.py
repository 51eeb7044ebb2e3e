"""Few users against thousands in rotation: what it costs that adapters are not on the device, or not even in memory.

Users come round in turn, the worst case of every cache that keeps what was used last. The store holds DISTINCT
revisions on disk; every user has one of them, read and checked for each user anew.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from papa_serving.contracts.generation import GenerationSpec
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.revisions import Revision
from papa_serving.generator.adapters import Adapters
from papa_serving.generator.engine import Engine, EngineConfig
from papa_serving.generator.generation import Defaults, Generator
from papa_serving.generator.items import Items
from papa_serving.generator.prompting import Prompter
from papa_serving.generator.slots import Slots
from papa_serving.settings import GeneratorSettings, Settings
from papa_serving.store.file_revisions import FileRevisionStore
from papa_serving.store.memory import MemoryItemStore, MemoryState, MemoryUserDirectory

from benchmarks.engine.paired import Paired, take_turns
from benchmarks.engine.passes import SAMPLER, STEPS, random_adapters
from papa.adapter import Adapter, new_adapter
from papa.config import DEFAULT_UPDATE
from papa.denoiser import Denoiser
from papa.revision_files import MANIFEST_FILE, Origin, digest, pack

DISTINCT = 64
REVISION = "000001-bench"
COLD = 200
PER_TURN = 64
"""Generations of one item in a turn, all asked for at once."""


def _key(number: int) -> UserKey:
    return UserKey("bench", f"u{number}")


class SharedFiles(FileRevisionStore):
    """User n has the files of user n modulo DISTINCT."""

    async def get(self, user: UserKey, revision: str, name: str) -> bytes:
        """A real read of a real file."""
        return await super().get(_key(int(user.user[1:]) % DISTINCT), revision, name)


class Rotation:
    """An engine with caches of its own, and `users` users whose turn comes round."""

    def __init__(self, denoiser: Denoiser, store: SharedFiles, records: list[Revision], users: int) -> None:
        self.users, self._next = users, 0
        settings = GeneratorSettings()
        state = MemoryState(Settings())
        for number in range(users):
            known = state.user(_key(number))
            record = records[number % DISTINCT]
            known.lineage[REVISION], known.current = record, REVISION
        slots = Slots(settings.slots, denoiser.layout.size, denoiser.device, denoiser.dtype)
        self.engine = Engine(denoiser, slots, EngineConfig(settings.max_rows, 4096, DEFAULT_UPDATE.adapt_from))
        directory = MemoryUserDirectory(state)
        self.adapters = Adapters(directory, store, denoiser, slots, settings.host_cache)
        defaults = Defaults(SAMPLER, STEPS)
        items, prompter = Items(MemoryItemStore(state), denoiser), Prompter(denoiser, settings.guidance)
        self._generator = Generator(self.engine, self.adapters, items, defaults, prompter)

    async def warm(self) -> None:
        """Fills the caches as far as they go."""
        for number in range(min(self.users, GeneratorSettings().host_cache)):
            await self.adapters.resolve(_key(number), "")

    async def turn(self) -> None:
        """The next PER_TURN users, one item each."""
        numbers = [(self._next + index) % self.users for index in range(PER_TURN)]
        self._next = (self._next + PER_TURN) % self.users
        await asyncio.gather(*(self._one(number) for number in numbers))

    async def _one(self, number: int) -> None:
        spec = GenerationSpec("r", f"g{number}-{time.monotonic_ns()}", _key(number), 1, number)
        async for _ in self._events(spec):
            pass

    def _events(self, spec: GenerationSpec) -> AsyncIterator[object]:
        return self._generator.run(spec)


async def write(denoiser: Denoiser, store: SharedFiles) -> list[Revision]:
    """DISTINCT revisions on disk, and their records."""
    replay, records = new_adapter(denoiser).replay, []
    for number, weights in enumerate(random_adapters(denoiser, DISTINCT)):
        files = pack(Adapter(weights, replay), denoiser.layout, DEFAULT_UPDATE, Origin(denoiser.backbone_hash, "", 0.0))
        await store.put(_key(number), REVISION, files)
        records.append(Revision(REVISION, "", 0.0, digest(files[MANIFEST_FILE]), 1, 1))
    return records


def rotation(denoiser: Denoiser, populations: tuple[int, ...], turns: int) -> tuple[Paired, list[float]]:
    """Throughput by number of users in rotation, and the seconds of cold loads one after another."""
    with tempfile.TemporaryDirectory() as folder, asyncio.Runner() as runner, ExitStack() as stack:
        store = SharedFiles(Path(folder))
        records = runner.run(write(denoiser, store))
        cold = runner.run(_cold(Rotation(denoiser, store, records, COLD)))
        worlds = [stack.enter_context(_running(Rotation(denoiser, store, records, users))) for users in populations]
        for world in worlds:
            runner.run(world.warm())

        def turn(world: Rotation) -> Callable[[], object]:
            return lambda: runner.run(world.turn())

        return take_turns({f"{world.users} users": turn(world) for world in worlds}, turns), cold


async def _cold(world: Rotation) -> list[float]:
    seconds = []
    for number in range(world.users):
        started = time.perf_counter()
        await world.adapters.resolve(_key(number), "")
        seconds.append(time.perf_counter() - started)
    return seconds


@contextmanager
def _running(world: Rotation) -> Iterator[Rotation]:
    world.engine.start()
    try:
        yield world
    finally:
        world.engine.stop()
