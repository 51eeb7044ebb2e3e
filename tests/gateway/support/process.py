"""The gateway as a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]


class Process:
    """`python -m papa_serving.gateway` with PAPA_* variables; use it as an async context manager."""

    def __init__(self, folder: Path, **environment: str) -> None:
        defaults = {
            "PYTHONPATH": str(ROOT),
            "PAPA_DATA_DIR": str(folder),
            "PAPA_REDIS__URL": "redis://127.0.0.1:1/0",
            "PAPA_GATEWAY__PORT": "0",
            "PAPA_METRICS__PORT": "0",
            "PAPA_GATEWAY__NOTICE_SECONDS": "0.1",
        }
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PAPA_", "PROM"))}
        self._folder, self._environment = folder, {**inherited, **defaults, **environment}
        # A file, because a pipe that nobody reads stops the process as soon as it has filled up.
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self.process: asyncio.subprocess.Process

    async def __aenter__(self) -> Process:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "papa_serving.gateway",
            env=self._environment,
            cwd=self._folder,
            stdout=asyncio.subprocess.PIPE,
            stderr=self._log,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.process.returncode is None:
            self.process.kill()
            await self.process.communicate()
        self._log.close()

    async def ready(self) -> dict[str, Any]:
        """The one line on standard output."""
        assert self.process.stdout is not None
        line = await asyncio.wait_for(self.process.stdout.readline(), 60)
        return json.loads(line)

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str, list[dict[str, Any]]]:
        """Exit code, rest of standard output, log lines."""
        self.process.send_signal(number)
        return await self.ended()

    async def ended(self) -> tuple[int, str, list[dict[str, Any]]]:
        out, _ = await asyncio.wait_for(self.process.communicate(), 60)
        assert self.process.returncode is not None
        return self.process.returncode, out.decode(), [json.loads(line) for line in self.log().splitlines()]

    def log(self) -> str:
        """What it has written to standard error so far."""
        file = self._log.fileno()
        return os.pread(file, os.fstat(file).st_size, 0).decode()


def scraped(address: str) -> str:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        return str(answer.read(), "utf-8")
