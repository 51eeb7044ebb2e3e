"""Runs what is not done yet, in several processes, and keeps each run's records in a file of its own.

A file is written under a temporary name and gets its own only when the run is complete: what was interrupted runs
again from its beginning, what is complete never runs again.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from benchmarks.alignment.runs import Run
from benchmarks.alignment.simulate import SHEET, simulate
from benchmarks.alignment.systems.registry import build, configuration
from benchmarks.alignment.world import world
from papa.backbone.sheet import picture


def raw_file(raw: Path, run: Run) -> Path:
    """The file of a run's records; its name holds a digest of the run and of its whole configuration.

    When a default changes, the runs that used it get other names and are done again.
    """
    text = json.dumps(described(run), sort_keys=True)
    return raw / f"{run.name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}.jsonl"


LATER = {"stable_from": 1000, "sharpness": 1.5, "steepness": 8.0, "script": False}
"""Settings that came after the first committed records, with the value that leaves a run as it was before them."""


def described(run: Run) -> dict[str, Any]:
    """A run and all settings that it uses. A setting of LATER at its value there is left out, so that records from
    before it are found."""
    sampling, lora, config = configuration(run)
    used = {name: value for name, value in asdict(config).items() if name not in LATER or value != LATER[name]}
    return {"run": asdict(run), "sampling": asdict(sampling), "lora": asdict(lora), "config": used}


def pending(runs: Iterable[Run], raw: Path) -> list[Run]:
    """The runs that have no records yet, in order and once each."""
    return [run for run in dict.fromkeys(runs) if not raw_file(raw, run).exists()]


def execute(run: Run, raw: Path, data: Path, bfloat16: bool) -> float:
    """Runs one and returns its seconds."""
    torch.set_num_threads(1)
    started = time.perf_counter()
    shared = world(run.dataset, data, bfloat16)
    target = raw_file(raw, run)
    unfinished = target.with_suffix(f".{os.getpid()}.tmp")
    with unfinished.open("w") as file:
        head = described(run) | {"machine": machine(), "date": datetime.now(UTC).date().isoformat()}
        _write(file, head | {"precision": "bfloat16" if bfloat16 else "float32"})
        sheets = []
        for record in simulate(run, shared, build(shared, run)):
            sheets += [record.pop("sheet")] if "sheet" in record else []
            _write(file, record)
    if run.seed == 0 and not run.overrides:
        picture(torch.cat([sheets[0], sheets[-1]]), columns=SHEET).save(target.with_suffix(".png"))
    unfinished.replace(target)
    return time.perf_counter() - started


def _write(file: Any, record: dict[str, Any]) -> None:
    file.write(json.dumps({key: _rounded(value) for key, value in record.items()}) + "\n")
    file.flush()


def _rounded(value: Any) -> Any:
    return round(value, 5) if isinstance(value, float) else value


def machine() -> str:
    """Processor and threads of a run, in words."""
    names = [line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, 1 thread, torch {torch.__version__}"


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def run_all(
    runs: list[Run], raw: Path, data: Path, workers: int, bfloat16: bool
) -> Iterator[tuple[Run, float | BaseException]]:
    """Each run as it ends, with its seconds or what stopped it; a run that fails does not stop the others."""
    raw.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(execute, run, raw, data, bfloat16): run for run in runs}
        for future in as_completed(futures):
            error = future.exception()
            yield futures[future], error or future.result()


def load(raw: Path, runs: Iterable[Run]) -> dict[Run, list[dict[str, Any]]]:
    """The records of those runs that are complete."""
    found = {}
    for run in dict.fromkeys(runs):
        path = raw_file(raw, run)
        if path.exists():
            found[run] = [json.loads(line) for line in path.read_text().splitlines()[1:]]
    return found
