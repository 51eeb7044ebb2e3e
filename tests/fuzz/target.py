"""The target of the fuzzer: a gateway process on a real Redis and real files."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from papa_serving.local.redis_process import RedisProcess
from papa_serving.settings import FeedbackSettings, RedisSettings, Settings
from papa_serving.store import open_items

from tests.gateway.support.doubles import GREY

ROOT = Path(__file__).parents[2]
PARTITIONS = 4


class Target:
    """A gateway that runs."""

    def __init__(self, folder: Path, process: subprocess.Popen[str], address: str) -> None:
        self.folder, self.address = folder, address
        self._process, self._seen = process, psutil.Process(process.pid)

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def memory(self) -> int:
        """Resident bytes."""
        return int(self._seen.memory_info().rss)

    def complaints(self) -> list[str]:
        """Log lines that report an internal error or are not JSON."""
        lines = (self.folder / "gateway.log").read_text().splitlines()
        return [
            line for line in lines if not line.startswith("{") or json.loads(line)["level"] in ("error", "critical")
        ]

    def odd_paths(self) -> list[str]:
        """Files and folders that no digest and no revision explains."""
        revisions = self.folder / "data" / "revisions"
        named = [path.relative_to(revisions).parts for path in revisions.rglob("*")]
        return ["/".join(parts) for parts in named if not _explained(parts)]


def _explained(parts: tuple[str, ...]) -> bool:
    """xx/digest/revision/file, as papa_serving.store.file_revisions has it."""
    digits, revision = set("0123456789abcdef"), re.fullmatch(r"\.?\d{6}-[0-9a-f]{8}.*", (*parts, "", "", "")[2])
    sizes = [len(name) for name in parts[:2]]
    return sizes == [2, 32][: len(sizes)] and set("".join(parts[:2])) <= digits and (len(parts) < 3 or bool(revision))


@contextmanager
def running(folder: Path, engine: str) -> Iterator[Target]:
    """Starts Redis and the gateway in front of the engine at that address."""
    (folder / "data").mkdir(parents=True)
    with RedisProcess(folder / "redis") as redis:
        asyncio.run(announce(redis.url))
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PAPA_", "PROM"))}
        environment = {
            **inherited,
            "PYTHONPATH": str(ROOT),
            "PAPA_DATA_DIR": str(folder / "data"),
            "PAPA_REDIS__URL": redis.url,
            # A machine too busy for Redis to answer within five seconds is not what is looked for.
            "PAPA_REDIS__SOCKET_TIMEOUT": "60",
            "PAPA_FEEDBACK__PARTITIONS": str(PARTITIONS),
            "PAPA_FEEDBACK__BACKLOG_LIMIT": "2000",
            # Users come back at once: else all of them would soon be deleted, and every answer the same.
            "PAPA_STORE__TOMBSTONE_TTL": "0.05",
            "PAPA_STORE__USER_REVISIONS": "2",
            "PAPA_STORE__USER_ITEMS": "64",
            "PAPA_GATEWAY__MAX_HELD_BYTES": str(2**20),
            "PAPA_GATEWAY__GENERATOR": engine,
            "PAPA_GATEWAY__PORT": "0",
            "PAPA_METRICS__PORT": "0",
            "PAPA_GATEWAY__DRAIN_SECONDS": "0",
        }
        with (folder / "gateway.log").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "papa_serving.gateway"],
                env=environment,
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        try:
            assert process.stdout is not None
            yield Target(folder, process, json.loads(process.stdout.readline())["grpc"])
        finally:
            process.kill()
            process.communicate()


async def announce(url: str) -> None:
    items = open_items(Settings(redis=RedisSettings(url=url), feedback=FeedbackSettings(partitions=PARTITIONS)))
    await items.publish_backbone(GREY)
    await items.close()
