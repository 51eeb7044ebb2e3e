"""The checks behind `papa doctor`: each says what it found and, where that is not good, how to mend it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from services.local.backbone_check import find_backbone
from services.local.failure import Failure
from services.local.ports import claim_port
from services.local.redis_binary import RedisProcessError, find_redis_server
from services.local.redis_check import check_redis
from services.settings import Settings

FREE_BYTES_WANTED = 2 * 2**30


class Verdict(Enum):
    """How a check ended; BAD keeps the service from starting."""

    GOOD = "ok"
    WARNING = "warning"
    BAD = "error"


@dataclass(frozen=True)
class Finding:
    """One check; `hint` says how to mend what is not good."""

    check: str
    verdict: Verdict
    found: str
    hint: str = ""


def diagnose(settings: Settings) -> Iterator[Finding]:
    """One finding a check, as soon as it is made."""
    yield _finding("python", lambda: sys.version.split()[0])
    yield _finding("gateway port", lambda: _port(settings.gateway.host, settings.gateway.port, "gateway.port"))
    yield _finding("metrics port", lambda: _port(settings.metrics.host, settings.metrics.port, "metrics.port"))
    page = settings.playground
    if page.enabled:
        yield _finding("playground port", lambda: _port(page.host, page.port, "playground.port"))
    if not settings.ray.address:
        yield _finding("ray port", lambda: _port("127.0.0.1", settings.ray.serve_grpc_port, "ray.serve_grpc_port"))
    yield _finding("redis", lambda: _redis(settings))
    yield _disk(settings.data_dir)
    yield _finding("backbone", lambda: str(find_backbone(settings.backbone) or f"{settings.backbone}, from the hub"))
    yield _finding("torch device", lambda: _device(settings.generator.device))


def _finding(check: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(check, Verdict.GOOD, look())
    except Failure as failure:
        return Finding(check, Verdict.BAD, failure.message, failure.hint)


def _port(host: str, port: int, setting: str) -> str:
    return f"{host}:{claim_port(host, port, setting)} is free"


def _redis(settings: Settings) -> str:
    if settings.redis.url:
        facts = check_redis(settings.redis)
        return f"version {facts.version}, append-only file, policy {facts.policy}"
    try:
        return f"embedded, {find_redis_server()}"
    except RedisProcessError as error:
        raise Failure(str(error)) from error


def _disk(data_dir: Path) -> Finding:
    existing = next(folder for folder in (data_dir.absolute(), *data_dir.absolute().parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    found = f"{free / 2**30:.1f} GiB free below {existing}"
    if free < FREE_BYTES_WANTED:
        return Finding("disk", Verdict.WARNING, found, "free some, or move the data with --data-dir")
    return Finding("disk", Verdict.GOOD, found)


def _device(device: str) -> str:
    """Torch is asked in a process of its own: it takes seconds to import, and may not be there at all."""
    program = (
        "import sys, torch; torch.zeros(1, device=sys.argv[1]); print(torch.__version__, torch.cuda.is_available())"
    )
    asked = subprocess.run([sys.executable, "-c", program, device], capture_output=True, text=True, check=False)
    if asked.returncode:
        reason = (asked.stderr.strip().splitlines() or ["no reason given"])[-1]
        hint = "pip install 'papa-serving[server]'" if "No module" in reason else "choose another generator.device"
        raise Failure(f"torch cannot use {device!r}: {reason}", hint)
    version, cuda = asked.stdout.split()
    unused = (
        " (a CUDA device is there: generator.device=cuda would use it)" if cuda == "True" and device == "cpu" else ""
    )
    return f"{device}, torch {version}{unused}"
