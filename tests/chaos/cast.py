"""The processes of one schedule, each started again when it dies, as a supervisor does."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from papa_serving.settings import Settings
from papa_serving.settings.variables import settings_environment

from tests.chaos.nursery import Child, Nursery


@dataclass
class Role:
    """One process that is replaced whenever it dies. `first`: more environment for the first process in it only."""

    nursery: Nursery
    main: str
    settings: Settings
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    first: Mapping[str, str] = field(default_factory=dict)
    child: Child | None = None
    deaths: int = -1
    address: str = ""

    @property
    def alive(self) -> bool:
        return self.child is not None and self.child.alive

    def start(self) -> None:
        """Starts the process."""
        if self.child is not None:
            self.child.close()
        self.deaths += 1
        more = self.first if self.deaths == 0 else {}
        environment = settings_environment(self.settings) | {**self.environment, **more}
        self.child = self.nursery.fork(self.main, self.log, environment)

    def signal(self, number: signal.Signals) -> None:
        if self.child is not None:
            self.child.signal(number)

    def close(self) -> None:
        if self.child is not None:
            self.child.close()
            self.child = None

    async def ready(self) -> dict[str, Any]:
        """The line that a gateway prints; empty when it died before."""
        assert self.child is not None
        line = await asyncio.to_thread(_line, self.child.output)
        return json.loads(line) if line else {}


def _line(output: int) -> bytes:
    said = b""
    while not said.endswith(b"\n"):
        more = os.read(output, 1)
        if not more:
            return b""
        said += more
    return said


class Cast:
    """All roles of one schedule."""

    def __init__(self) -> None:
        self.trainers: list[Role] = []
        self.gateways: list[Role] = []
        self.generators: list[Role] = []
        self.leaving: list[Role] = []
        self._keeping: asyncio.Task[None] | None = None

    @property
    def everybody(self) -> list[Role]:
        return [*self.trainers, *self.gateways, *self.generators]

    @property
    def address(self) -> str:
        """The address of the newest gateway that is ready."""
        return next((role.address for role in reversed(self.gateways) if role.address), "")

    async def start(self) -> None:
        """Everybody, and whoever brings them back."""
        for role in self.everybody:
            role.start()
        await asyncio.gather(*(self.announce(role) for role in self.gateways))
        self._keeping = asyncio.create_task(self._keep())

    async def announce(self, role: Role) -> None:
        """Waits for the address; a role that died before is left to the keeper."""
        role.address = (await role.ready()).get("grpc", "")

    async def stop(self) -> None:
        """SIGKILL for all."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
        for role in (*self.everybody, *self.leaving):
            role.close()

    async def _keep(self) -> None:
        while True:
            for role in self.everybody:
                if role.child is not None and not role.alive:
                    role.address = ""
                    role.start()
                    if role in self.gateways:
                        await self.announce(role)
            await asyncio.sleep(0.02)
