"""The faults of a schedule, and their repair."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import redis
from papa_serving.local.redis_process import RedisProcess
from redis.asyncio import Redis
from redis.exceptions import OutOfMemoryError

from tests.chaos.cable import Cable
from tests.chaos.cast import Cast
from tests.chaos.proxy import Proxy
from tests.chaos.schedule import POINTS, Fault
from tests.chaos.scripts import CLOCK_KEY

STEP_SECONDS = 40.0


@dataclass
class Stage:
    """Everything that a fault can touch. `proxies`: "trainer" and "gateway", before the same Redis. `cable`: between
    the trainers' namespace and here, where trainers are to be partitioned and the machine allows it. Whoever speaks to
    the server itself holds `server_is_up`, and so does who kills it."""

    folder: Path
    server: RedisProcess
    proxies: Mapping[str, Proxy]
    cast: Cast
    lease: float
    cable: Cable | None = None
    server_is_up: asyncio.Lock = field(default_factory=asyncio.Lock)
    held_back: list[float] = field(default_factory=list)
    """When the server was killed while it held writes back."""

    @property
    def marker(self) -> Path:
        return self.folder / "marker"

    @property
    def clock(self) -> Path:
        return self.folder / "clock"


def first_environment(fault: Fault, stage: Stage) -> dict[str, str]:
    """The environment that makes the first trainers kill or suspend themselves once, at a named point."""
    what, _, point = fault.kind.rpartition(" ")
    if point not in POINTS:
        return {}
    number = "STOP" if what.startswith("stop") else "KILL"
    return {"TRAINER_FAULT": point, "TRAINER_FAULT_MARKER": str(stage.marker), "TRAINER_FAULT_SIGNAL": number}


async def happen(fault: Fault, stage: Stage) -> None:
    """The fault, until it is over by itself; `put_right` ends what is left."""
    await asyncio.sleep(fault.at)
    match fault.kind.removesuffix(", real update").split(" "):
        case ["kill", "trainer"]:
            stage.cast.trainers[0].signal(signal.SIGKILL)
        case ["kill", "gateway"]:
            stage.cast.gateways[0].signal(signal.SIGKILL)
        case ["kill", "generator"]:
            for _ in range(fault.count):
                stage.cast.generators[0].signal(signal.SIGKILL)
                await asyncio.sleep(fault.seconds)
        case ["kill", "redis"]:
            async with stage.server_is_up:
                holding = await asyncio.to_thread(stopped_while_holding_back, stage.server)
                await asyncio.to_thread(stage.server.kill)
                stage.held_back += [time.monotonic()] if holding else []
                await asyncio.sleep(fault.seconds / 4)
                await asyncio.to_thread(stage.server.start)
        case ["roll", "trainer"]:
            stage.cast.trainers[0].signal(signal.SIGTERM)
        case ["roll", "gateway"]:
            await _roll_gateway(stage.cast)
        case ["stop", "trainer"]:
            stage.cast.trainers[0].signal(signal.SIGSTOP)
            await asyncio.sleep(1.5 * stage.lease + fault.seconds / 2)
        case ["stop", "trainer", _]:
            await asyncio.sleep(2 * stage.lease + fault.seconds / 2)
        case ["lose", "replies", *how]:
            for proxy in stage.proxies.values():
                proxy.lose(2 + fault.count, silently=bool(how))
            await asyncio.sleep(fault.seconds)
            for proxy in stage.proxies.values():
                proxy.heal(late=True)
        case ["partition", "trainer"] if stage.cable is not None:
            await asyncio.to_thread(stage.cable.pull)
            await asyncio.sleep(fault.seconds)
            await asyncio.to_thread(stage.cable.plug)
        case ["partition", who]:
            stage.proxies[who].part()
            await asyncio.sleep(fault.seconds)
            stage.proxies[who].heal(late=fault.late)
        case ["clock", "step"]:
            await _step_clock(stage, STEP_SECONDS * fault.count * (-1 if fault.late else 1))
            if fault.count % 2:  # and what the dead one held must not stay its own for as long as the step was
                stage.cast.trainers[0].signal(signal.SIGKILL)
        case ["redis", "full"]:
            await _configure(stage, "maxmemory", "1")
            await asyncio.sleep(fault.seconds)
            await _configure(stage, "maxmemory", "0")


async def put_right(stage: Stage) -> None:
    """Whatever a fault has left; stepped clocks stay as they are."""
    if stage.cable is not None:
        await asyncio.to_thread(stage.cable.plug)
    for proxy in stage.proxies.values():
        proxy.heal(late=True)
    for role in stage.cast.everybody:
        role.signal(signal.SIGCONT)
    await _configure(stage, "maxmemory", "0")


async def _roll_gateway(cast: Cast) -> None:
    """The new one first, then SIGTERM for the old one, which is not brought back."""
    old = cast.gateways[0]
    new = type(old)(old.nursery, old.main, old.settings, old.log, old.environment)
    new.start()
    await cast.announce(new)
    cast.gateways.append(new)
    if old not in cast.gateways:  # another roll has let it go meanwhile
        return
    cast.gateways.remove(old)
    cast.leaving.append(old)
    old.signal(signal.SIGTERM)


async def _step_clock(stage: Stage, seconds: float) -> None:
    stage.clock.write_text(str(seconds))
    while not await _set_clock(stage, seconds):  # noqa: ASYNC110 - Redis is full by another fault, which ends
        await asyncio.sleep(0.05)


async def _set_clock(stage: Stage, seconds: float) -> bool:
    async with stage.server_is_up, Redis.from_url(stage.server.url, protocol=2, socket_timeout=60.0) as client:
        try:
            await client.set(CLOCK_KEY, round(seconds))
        except OutOfMemoryError:
            return False
    return True


def stopped_while_holding_back(server: RedisProcess) -> bool:
    """Suspends it; whether it held writes back, which everysec does while the file is still synchronised.

    It says so itself, but may begin after its answer: then the thread that synchronises is in the kernel (D) when all
    others stand still (T).
    """
    with redis.Redis.from_url(server.url, protocol=2, socket_timeout=60.0) as client:
        said = client.info("persistence")
    os.kill(server.pid, signal.SIGSTOP)
    while set(states := _thread_states(server.pid)) - {"T", "D"}:
        time.sleep(0.001)
    return bool(said["aof_pending_bio_fsync"] or said["aof_buffer_length"]) or "D" in states


def _thread_states(pid: int) -> list[str]:
    stats = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return [stat.rpartition(")")[2].split()[0] for stat in stats]


async def _configure(stage: Stage, name: str, value: str) -> None:
    async with stage.server_is_up, Redis.from_url(stage.server.url, protocol=2, socket_timeout=60.0) as client:
        await client.config_set(name, value)
