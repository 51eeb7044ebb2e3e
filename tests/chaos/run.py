"""One schedule from beginning to end."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from contextlib import AsyncExitStack, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from urllib.parse import unquote

import redis.asyncio
from papa_serving.contracts.errors import PapaError
from papa_serving.contracts.identity import DEFAULT_TENANT, UserKey
from papa_serving.contracts.items import BackboneInfo, StoredItem
from papa_serving.feedback import open_log
from papa_serving.local.redis_process import RedisProcess
from papa_serving.settings import (
    FeedbackSettings,
    GatewaySettings,
    GeneratorSettings,
    LogSettings,
    MetricsSettings,
    RedisSettings,
    Settings,
    StoreSettings,
    TrainerSettings,
)
from papa_serving.store import open_items, open_revisions, open_users
from papa_serving.store.census import sweep
from papa_serving.store.redis_keys import Keys

from tests.chaos.cable import Cable, unavailable
from tests.chaos.callers import Callers
from tests.chaos.cast import Cast, Role
from tests.chaos.checker import Violation, check
from tests.chaos.collect import collect
from tests.chaos.faults import Stage, first_environment, happen, put_right
from tests.chaos.history import Final, History
from tests.chaos.nursery import CHILDREN, LEARNING, Nursery
from tests.chaos.proxy import Proxy
from tests.chaos.schedule import Schedule
from tests.chaos.updater import ChaosUpdater
from tests.ports import free_port

LOOPBACK = "127.0.0.1"
PARTITIONS = 2
LEASE = 1.2
COMMAND_SECONDS = 1.2
OWN_COMMAND_SECONDS = 30.0
PATIENCE = 60.0
"""Seconds after the faults in which everything must be acknowledged, and again as many in which it must be applied."""


@dataclass(frozen=True)
class Result:
    """The result of one schedule. `died`: processes that were restarted."""

    schedule: Schedule
    history: History
    final: Final
    violations: tuple[Violation, ...]
    seconds: float
    died: int
    generated: int = 0


async def run(schedule: Schedule, nursery: Nursery, root: Path, defect: str = "") -> Result:
    """The folder of a run without violations is removed."""
    begun = time.monotonic()
    folder = root / f"seed-{schedule.seed}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    async with AsyncExitStack() as stack:
        server = RedisProcess(folder / "redis", appendfsync=schedule.appendfsync)
        await asyncio.to_thread(server.start)
        stack.push_async_callback(asyncio.to_thread, server.kill)
        path = unquote(server.url.removeprefix("unix://"))
        parted = any(fault.kind == "partition trainer" for fault in schedule.faults)
        cable = stack.enter_context(Cable()) if parted and not unavailable() else None
        hosts = {"trainer": cable.address if cable else LOOPBACK, "gateway": LOOPBACK, "generator": LOOPBACK}
        proxies = {who: await stack.enter_async_context(Proxy(path, host)) for who, host in hosts.items()}
        stage = Stage(folder, server, proxies, Cast(), LEASE, cable)
        stack.push_async_callback(stage.cast.stop)
        play = Play(schedule, stage, nursery, defect)
        history, final = await play.perform()
    odd = [Violation("errors_are_typed", "", what) for what in play.odd]
    violations = (*check(history, final), *odd)
    if violations:
        story = {"violations": violations, "schedule": schedule, "history": history, "final": final}
        (folder / "history.json").write_text(json.dumps(story, indent=1, default=_plain))
    else:
        shutil.rmtree(folder, ignore_errors=True)
    died = sum(max(0, role.deaths) for role in stage.cast.everybody)
    return Result(schedule, history, final, violations, time.monotonic() - begun, died, play.generated)


def _plain(value: object) -> object:
    return sorted(value) if isinstance(value, frozenset) else asdict(value)  # type: ignore[call-overload]


class Play:
    """The cast, the callers and the faults of one schedule, on a stage that stands."""

    def __init__(self, schedule: Schedule, stage: Stage, nursery: Nursery, defect: str) -> None:
        self.odd: list[str] = []
        self.generated = 0
        self._engine = f"127.0.0.1:{free_port()}" if schedule.real else "127.0.0.1:1"
        self._schedule, self._stage = schedule, stage
        self._users = [UserKey(DEFAULT_TENANT, visitor.name) for visitor in schedule.visitors]
        self._environment = {"CHAOS_CLOCK": str(stage.clock), "CHAOS_BREAK": defect}
        stage.clock.write_text("0")
        self._engage(nursery)

    async def perform(self) -> tuple[History, Final]:
        """Ends when all that was accepted is applied or dead, or when that takes too long."""
        stage, schedule = self._stage, self._schedule
        await self._furnish()
        await stage.cast.start()
        longest = max((fault.at + fault.seconds for fault in schedule.faults), default=0.0)
        callers = Callers(lambda: stage.cast.address, time.monotonic() + longest + PATIENCE)
        try:
            visits = [asyncio.create_task(callers.visit(visitor)) for visitor in schedule.visitors]
            await asyncio.gather(*(happen(fault, stage) for fault in schedule.faults))
            await put_right(stage)
            await asyncio.gather(*visits)
            settled = await self._settled()
        finally:
            await callers.close()
            await stage.cast.stop()
        self.odd, self.generated = callers.odd, callers.generated
        history = replace(callers.history(), held_back=tuple(stage.held_back))
        return history, await self._collect(settled)

    def _engage(self, nursery: Nursery) -> None:
        stage, module = self._stage, LEARNING if self._schedule.real else CHILDREN
        first: dict[str, str] = {}
        for fault in self._schedule.faults:
            first = first or first_environment(fault, stage)
        stops = any(fault.kind.startswith("stop") for fault in self._schedule.faults)
        for number in range(max(self._schedule.trainers, 1 + stops)):
            log = stage.folder / f"trainer-{number}.log"
            settings = self._settings(stage.proxies["trainer"].url)
            network = {"CHAOS_NAMESPACE": stage.cable.namespace} if stage.cable else {}
            role = Role(nursery, f"{module}:trainer", settings, log, self._environment | network, first)
            stage.cast.trainers.append(role)
        gateway = self._settings(stage.proxies["gateway"].url)
        log = stage.folder / "gateway.log"
        stage.cast.gateways.append(Role(nursery, f"{CHILDREN}:gateway", gateway, log, self._environment))
        if self._schedule.real:
            settings, log = self._settings(stage.proxies["generator"].url), stage.folder / "generator.log"
            stage.cast.generators.append(Role(nursery, f"{module}:generator", settings, log, self._environment))

    def _settings(self, url: str, seconds: float = COMMAND_SECONDS) -> Settings:
        return Settings(
            data_dir=self._stage.folder,
            backbone=str(self._stage.folder / "backbone"),
            redis=RedisSettings(url=url, prefix="chaos", socket_timeout=seconds),
            store=StoreSettings(tombstone_ttl=3600.0),
            feedback=FeedbackSettings(partitions=PARTITIONS),
            trainer=TrainerSettings(min_labels=3, max_wait=0.05, lease=LEASE, poll=0.01, max_attempts=3),
            gateway=GatewaySettings(port=0, notice_seconds=0.05, drain_seconds=2.0, generator=self._engine),
            generator=GeneratorSettings(threads=1, sampler="ddim", steps=2, slots=8, max_rows=8, insecure=True),
            metrics=MetricsSettings(port=0),
            log=LogSettings(level="info"),
        )

    async def _furnish(self) -> None:
        """The backbone and an item for everybody."""
        items = open_items(self._settings(self._stage.server.url, OWN_COMMAND_SECONDS))
        backbone, sample = BackboneInfo(ChaosUpdater.backbone_hash, "chaos", (1, 8, 8)), b"sample"
        if self._schedule.real:
            from tests.chaos.learning import furnish  # torch, which the other schedules do without

            backbone, sample = await asyncio.to_thread(furnish, self._stage.folder / "backbone")
        await items.publish_backbone(backbone)
        for user in self._users:
            await items.put(user, [StoredItem("item", sample, "", "generation", 0)])
        await items.close()

    async def _settled(self) -> bool:
        log = open_log(self._settings(self._stage.server.url, OWN_COMMAND_SECONDS))
        deadline = time.monotonic() + PATIENCE
        try:
            while time.monotonic() < deadline:
                with suppress(PapaError):
                    waiting = [(await log.stats(partition)).backlog for partition in range(PARTITIONS)]
                    if not any(waiting):
                        return True
                await asyncio.sleep(0.02)
            return False
        finally:
            await log.close()

    async def _sweep(self) -> None:
        """As trainers do every hour: a kill between the files and the commit leaves files behind, also of a deleted
        user."""
        settings = self._settings(self._stage.server.url, OWN_COMMAND_SECONDS)
        users = open_users(settings)
        await sweep(users, open_revisions(settings))
        await users.close()

    async def _collect(self, settled: bool) -> Final:
        keys = Keys("chaos", PARTITIONS)
        store = self._stage.folder / "revisions"
        await self._sweep()
        async with redis.asyncio.Redis.from_url(self._stage.server.url, protocol=2, socket_timeout=60.0) as client:
            return await collect(client, keys, store, self._users, settled=settled)
