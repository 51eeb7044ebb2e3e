"""The target of the attacks: a gateway process with static keys, a real Redis and an engine process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import psutil
from papa_serving.local.redis_process import RedisProcess
from papa_serving.settings import FeedbackSettings, RedisSettings, Settings
from papa_serving.store import open_items

from tests.attack.messages import PARTITIONS
from tests.attack.result import Target
from tests.gateway.support.doubles import GREY
from tests.gateway.support.fake_engine import FakeEngine
from tests.gateway.support.process import Process
from tests.ports import free_port

KEYS = {"mallory": ("shop", "mallory"), "alice": ("shop", "alice"), "shop": ("shop", ""), "other": ("other", "")}
BACKLOG = 10_000


def token_of(name: str) -> str:
    return f"a-long-secret-of-{name}"


@asynccontextmanager
async def attacked(folder: Path) -> AsyncIterator[tuple[Target, psutil.Process]]:
    """Runs everything until the block ends; yields the gateway and its process."""
    with RedisProcess(folder / "redis") as redis, _engine() as engine:
        await _announce(redis.url)
        health_port = free_port()
        settings = {
            "PAPA_REDIS__URL": redis.url,
            "PAPA_FEEDBACK__PARTITIONS": str(PARTITIONS),
            "PAPA_FEEDBACK__BACKLOG_LIMIT": str(BACKLOG),
            "PAPA_GATEWAY__GENERATOR": engine,
            "PAPA_GATEWAY__AUTH__MODE": "keys",
            "PAPA_GATEWAY__AUTH__KEYS_FILE": str(written_keys(folder)),
            "PAPA_GATEWAY__HEALTH_PORT": str(health_port),
            "PAPA_GATEWAY__DRAIN_SECONDS": "0",
        }
        async with Process(folder, **settings) as gateway:
            ready = await gateway.ready()
            address = ready["grpc"]
            process = psutil.Process(gateway.process.pid)
            try:
                health = f"127.0.0.1:{health_port}"
                yield Target(address, health, folder, redis.url, token_of, ready["metrics"], gateway.log), process
            finally:
                with contextlib.suppress(ProcessLookupError):
                    gateway.process.kill()
                await gateway.process.wait()


def written_keys(folder: Path) -> Path:
    """A file with the keys of all names."""
    path = folder / "keys.toml"
    path.write_text("\n".join(_key(name, *who) for name, who in KEYS.items()))
    return path


def _key(name: str, tenant: str, user: str) -> str:
    named = f'user = "{user}"\n' if user else ""
    return (
        f'[[keys]]\nkey = "{token_of(name)}"\ntenant = "{tenant}"\n{named}scopes = ["generate", "feedback", "admin"]\n'
    )


async def _announce(url: str) -> None:
    items = open_items(Settings(redis=RedisSettings(url=url), feedback=FeedbackSettings(partitions=PARTITIONS)))
    await items.publish_backbone(GREY)
    await items.close()


@contextmanager
def _engine() -> Iterator[str]:
    """The address of an engine that makes items at once, in a process of its own."""
    command = [sys.executable, "-m", "tests.attack.target"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ}) as process:
        try:
            assert process.stdout is not None
            yield json.loads(process.stdout.readline())
        finally:
            process.kill()


class _Forgetful(list):  # type: ignore[type-arg]
    def append(self, _: object) -> None:
        """Keeps nothing: the engine is asked too often."""


async def _serve() -> None:
    engine = FakeEngine()
    engine.requests = engine.metadata = engine.timeouts = engine.packed = _Forgetful()
    await engine.start()
    print(json.dumps(f"127.0.0.1:{engine.port}"), flush=True)
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve())
