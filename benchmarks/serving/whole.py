"""The whole path (client → gateway → Serve → engine, items stored) against the bare engine, in turns."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

from papa_serving.client import AsyncClient
from papa_serving.contracts.errors import PapaError
from papa_serving.contracts.identity import UserKey
from papa_serving.generator.engine import Engine, EngineConfig
from papa_serving.generator.job import FinishedRows, Job
from papa_serving.generator.slots import Slots

from benchmarks.engine.paired import Paired, take_turns
from benchmarks.engine.passes import SAMPLER, STEPS
from papa.config import DEFAULT_UPDATE
from papa.denoiser import Denoiser

CALLERS, ITEMS, ROUNDS = 8, 8, 2


def against_bare(address: str, denoiser: Denoiser, turns: int) -> Paired:
    """A turn: CALLERS callers ask for ITEMS items, ROUNDS times, each as soon as it has its last."""
    slots = Slots(1, denoiser.layout.size, denoiser.device, denoiser.dtype)
    engine = Engine(denoiser, slots, EngineConfig(adapt_from=DEFAULT_UPDATE.adapt_from))
    engine.start()
    with asyncio.Runner() as runner:
        client = runner.run(_open(address))
        ways: dict[str, Callable[[], object]] = {
            "bare engine": lambda: _all(lambda caller: _bare(engine, caller)),
            "whole path": lambda: runner.run(_calls(client)),
        }
        try:
            return take_turns(ways, turns)
        finally:
            runner.run(client.close())
            engine.stop()


async def _open(address: str) -> AsyncClient:
    return AsyncClient(address)


async def _calls(client: AsyncClient) -> None:
    async def one(caller: int) -> None:
        for _ in range(ROUNDS):
            await client.generate(f"u{caller}", ITEMS, timeout=120.0)

    await asyncio.gather(*(one(caller) for caller in range(CALLERS)))


def _all(work: Callable[[int], Any]) -> None:
    threads = [threading.Thread(target=work, args=(caller,)) for caller in range(CALLERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _bare(engine: Engine, caller: int) -> None:
    for _ in range(ROUNDS):
        done, left, failure = threading.Event(), [ITEMS], list[PapaError]()

        def take(result: FinishedRows | PapaError, done: Any = done, left: Any = left, failure: Any = failure) -> None:
            if isinstance(result, PapaError):
                failure.append(result)
                left[0] = 0
            else:
                left[0] -= len(result.indexes)
            if left[0] <= 0:
                done.set()

        user = UserKey("bench", f"u{caller}")
        engine.inbox.reserve(user, ITEMS, STEPS)
        engine.inbox.submit(Job(user, ITEMS, 0, SAMPLER, STEPS, take))
        done.wait()
        if failure:
            raise failure[0]
