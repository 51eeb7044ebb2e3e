"""The service as processes: redis-server, the generator, the gateway."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from papa_serving.local.redis_process import RedisProcess

ROOT = Path(__file__).parents[2]
ENGINE = {"THREADS": "1", "MAX_ROWS": "16", "MAX_QUEUED_ROWS": "256", "SAMPLER": "dpmpp_2m", "STEPS": "12"}


@contextmanager
def running(folder: Path, rate: float, burst: float) -> Iterator[str]:
    """The gateway's address; a user may have `rate` items a second (0: any number) and `burst` at once."""
    with RedisProcess(folder / "redis") as redis:
        settings = {"PAPA_DATA_DIR": str(folder), "PAPA_REDIS__URL": redis.url, "PAPA_METRICS__PORT": "0"}
        engine = {f"PAPA_GENERATOR__{name}": value for name, value in ENGINE.items()}
        with _process("benchmarks.isolation.engine", settings | engine) as address:
            gateway = {
                "PAPA_GATEWAY__PORT": "0",
                "PAPA_GATEWAY__GENERATOR": address,
                "PAPA_GATEWAY__RATES__USER": str(rate),
                "PAPA_GATEWAY__RATES__USER_BURST": str(burst),
            }
            with _process("papa_serving.gateway", settings | gateway) as ready:
                yield json.loads(ready)["grpc"]


@contextmanager
def _process(module: str, environment: Mapping[str, str]) -> Iterator[str]:
    """The line that it prints once it serves."""
    pipe = subprocess.PIPE
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PAPA_", "PROM"))}
    command = [sys.executable, "-m", module]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env={**inherited, **environment},
        stdin=pipe,
        stdout=pipe,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()
