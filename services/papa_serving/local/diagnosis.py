"""The checks of `papa doctor`. Each reports what it found and, if something is wrong, how to mend it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from papa_serving.contracts.errors import StorageUnavailable
from papa_serving.local.backbone_check import (
    INSTALL,
    Unanswered,
    asked,
    find_backbone,
    inspect_hub,
    loaded_hashes,
    refuse_former_hash,
    taught_backbone,
)
from papa_serving.local.failure import Failure
from papa_serving.local.instance_lock import running_service
from papa_serving.local.ports import claim_port
from papa_serving.local.redis_check import check_redis
from papa_serving.local.redis_process import RedisProcessError, find_redis_server, server_version
from papa_serving.local.stored_redis import stored_redis
from papa_serving.settings import Settings
from papa_serving.settings.addresses import host_port
from papa_serving.store.records import short_hash

FREE_BYTES_WANTED = 2 * 2**30


class Verdict(Enum):
    """How a check ended; BAD keeps the service from starting."""

    GOOD = "ok"
    WARNING = "warning"
    BAD = "error"


@dataclass(frozen=True)
class Finding:
    """The result of one check; `hint` says how to mend a problem."""

    check: str
    verdict: Verdict
    found: str
    hint: str = ""


def diagnose(settings: Settings) -> Iterator[Finding]:
    """Yields one finding per check, each as soon as it is known."""
    yield _finding("python", lambda: sys.version.split()[0])
    if running := running_service(settings.data_dir):
        yield Finding("service", Verdict.GOOD, f"runs on {settings.data_dir} (process {running})")
    yield _finding("gateway port", lambda: _port(settings.gateway.host, settings.gateway.port, "gateway.port", running))
    yield _finding("metrics port", lambda: _port(settings.metrics.host, settings.metrics.port, "metrics.port", running))
    page = settings.playground
    if page.enabled:
        yield _finding("playground port", lambda: _port(page.host, page.port, "playground.port", running))
    if not settings.ray.address:
        ray = settings.ray.serve_grpc_port
        yield _finding("ray port", lambda: _port("127.0.0.1", ray, "ray.serve_grpc_port", running))
    redis = _finding("redis", lambda: _redis(settings))
    yield redis
    yield _disk(settings.data_dir)
    if redis.verdict is Verdict.GOOD and not (running and not settings.redis.url):
        yield _finding("store", lambda: _store(settings))
    backbone = _finding("backbone", lambda: _backbone(settings))
    yield backbone
    yield _finding("torch device", lambda: _device(settings.generator.device))
    if settings.trainer.device != settings.generator.device:
        yield _finding("training device", lambda: _device(settings.trainer.device))
    if backbone.verdict is Verdict.GOOD and find_backbone(settings.backbone) is not None:
        yield _finding("backbone hash", lambda: _hash(settings))


def _finding(check: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(check, Verdict.GOOD, look())
    except Failure as failure:
        return Finding(check, Verdict.BAD, failure.message, failure.hint)


def _port(host: str, port: int, setting: str, running: str) -> str:
    """Whether a service can listen there; the one that runs on these settings does so already."""
    try:
        return f"{host_port(host, claim_port(host, port, setting))} is free"
    except Failure:
        if not running:
            raise
        return f"{host_port(host, port)}, of the service that runs here"


def _redis(settings: Settings) -> str:
    if settings.redis.url:
        facts = check_redis(settings.redis)
        return f"version {facts.version}, append-only file, policy {facts.policy}"
    try:
        server = find_redis_server()
    except RedisProcessError as error:
        raise Failure(str(error)) from error
    kept = settings.redis.appendfsync
    return f"embedded, version {server_version(server)}, append-only file, fsync {kept} ({server})"


def _store(settings: Settings) -> str:
    """Looks at the backbone that the store names; a folder that `papa up` has not run on yet names none."""
    if not settings.redis.url and not (settings.data_dir / "redis").is_dir():
        return "nothing is stored yet"
    try:
        with stored_redis(settings) as reached:
            known = refuse_former_hash(reached)
    except StorageUnavailable as error:
        raise Failure(f"the store cannot be read: {error}", "mend the Redis first") from error
    return "names no backbone yet" if known is None else f"of the backbone {short_hash(known.backbone_hash)}"


def _backbone(settings: Settings) -> str:
    folder = find_backbone(settings.backbone)
    if folder is not None:
        return str(folder)
    if settings.ray.address:
        return f"{settings.backbone}, from the hub, as Ray's nodes reach it"
    return f"{settings.backbone}, a {inspect_hub(settings.backbone)} from the hub"


def _disk(data_dir: Path) -> Finding:
    existing = next(folder for folder in (data_dir.absolute(), *data_dir.absolute().parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    found = f"{free / 2**30:.1f} GiB free below {existing}"
    if not os.access(existing, os.W_OK | os.X_OK):
        hint = "give this user the folder, or move the data with --data-dir"
        return Finding("disk", Verdict.BAD, f"{existing} cannot be written", hint)
    if free < FREE_BYTES_WANTED:
        return Finding("disk", Verdict.WARNING, found, "free some, or move the data with --data-dir")
    return Finding("disk", Verdict.GOOD, found)


def _device(device: str) -> str:
    """Asks torch in a separate process: it takes seconds to import and may be missing."""
    program = (
        "import sys, torch; torch.zeros(1, device=sys.argv[1]); print(torch.__version__, torch.cuda.is_available())"
    )
    try:
        version, cuda = asked(program, device).split()
    except Unanswered as reason:
        hint = INSTALL if "No module" in str(reason) else "choose another generator.device or trainer.device"
        raise Failure(f"torch cannot use {device!r}: {reason}", hint) from reason
    unused = (
        " (a CUDA device is there: generator.device=cuda would use it)" if cuda == "True" and device == "cpu" else ""
    )
    return f"{device}, torch {version}{unused}"


def _hash(settings: Settings) -> str:
    """The hash of the backbone, against the one that the revisions of this folder were made for. The backbone is loaded
    and run once for it, as generator and trainer do."""
    found, former = loaded_hashes(settings.backbone)
    taught = taught_backbone(settings.store.path or settings.data_dir / "revisions")
    if taught not in ("", found, former):
        hint = "name the backbone that they were made for with --backbone, or another folder with --data-dir"
        raise Failure(f"the revisions kept here were made for the backbone {short_hash(taught)}, "
                      f"this is {short_hash(found)}", hint)  # fmt: skip
    return short_hash(found) + (", that of the revisions kept here" if taught else "")
