"""`python -m benchmarks.isolation`: p99 of well-behaved users beside a flood ÷ without it, as docs/results/isolation.*.

Turns with and without the flood take turns, so that what else the machine does falls on both.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from papa_serving.client import AsyncClient

from benchmarks.alignment.runner import machine
from benchmarks.isolation.server import ROOT, running

RESULTS = ROOT / "docs" / "results"
USERS = 4
PAUSE = 0.5
FLOOD_STARTS = 1.0
"""Seconds that the flood's process takes to start; it begins after the others rather than before."""
BEHAVED = f"{USERS} users, one item each {PAUSE:g} s"


async def behaved(client: AsyncClient, user: str, end: float, seconds: list[float]) -> None:
    """One item, then a pause, until `end`."""
    while time.monotonic() < end:
        begun = time.monotonic()
        await client.generate(user, 1)
        seconds.append(time.monotonic() - begun)
        await asyncio.sleep(PAUSE)


async def turn(address: str, length: float, flood: int) -> tuple[list[float], Counter[str]]:
    """Latencies of the well-behaved, and what the flood was told."""
    seconds: list[float] = []
    command = [sys.executable, "-m", "benchmarks.isolation.flood", address, str(length), str(flood)]
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=subprocess.PIPE) if flood else None
    if process is not None:
        await asyncio.sleep(FLOOD_STARTS)
    end = time.monotonic() + length
    async with AsyncClient(address) as client:
        await asyncio.gather(*(behaved(client, f"user-{number}", end, seconds) for number in range(USERS)))
    told = (await process.communicate())[0] if process is not None else b"{}"
    return seconds, Counter(json.loads(told))


def percentile(values: list[float], share: float) -> float:
    """The nearest rank."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


async def measure(address: str, options: argparse.Namespace) -> dict[str, Any]:
    """Both kinds of turns, one after the other."""
    quiet: list[float] = []
    beside: list[float] = []
    answers: Counter[str] = Counter()
    await turn(address, 3.0, 0)
    for _ in range(options.turns):
        quiet += (await turn(address, options.seconds, 0))[0]
        seconds, told = await turn(address, options.seconds, options.flood)
        beside, answers = beside + seconds, answers + told
    shares = {"p50": 0.5, "p99": 0.99}
    figures = {name: [percentile(quiet, share), percentile(beside, share)] for name, share in shares.items()}
    return {
        "seconds": figures,
        "ratios": {name: after / before for name, (before, after) in figures.items()},
        "calls": [len(quiet), len(beside)],
        "flood": dict(answers),
    }


def page(found: dict[str, Any]) -> str:
    """docs/results/isolation.md."""
    rows = "\n".join(
        f"| {name} | {case['seconds']['p99'][0]:.3f} | {case['seconds']['p99'][1]:.3f} | {case['ratios']['p50']:.2f} "
        f"| **{case['ratios']['p99']:.2f}** | {', '.join(f'{n} {r}' for r, n in sorted(case['flood'].items()))} |"
        for name, case in found["cases"].items()
    )
    return f"""# One user's flood, and the others' latency

Written by `python -m benchmarks.isolation`. {BEHAVED}; beside them one user asks with {found["flood"]} callers
for eight items each, again and again, heeding no answer. redis-server, the generator, the gateway, the users and the
flood are processes of their own on this machine; the flood's has the lowest priority, since what it computes would be
computed elsewhere. Shipped backbone, 12 steps. Turns with and without the flood alternate. Goal: p99 beside the flood
at most twice that without.

| limit of a user's rate | p99 without, s | p99 beside, s | p50 ÷ | p99 ÷ | what the flood was told |
|---|---|---|---|---|---|
{rows}

{found["machine"]}; load {found["load"]:.1f} from everything on it; {found["date"]}.
"""


def main() -> None:
    """Measures with and without a limit, and writes both results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.isolation")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--flood", type=int, default=16)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    cases = {}
    for name, rate, burst in (("none", 0.0, 1.0), ("4 items a second, 8 at once", 4.0, 8.0)):
        with tempfile.TemporaryDirectory() as folder, running(Path(folder), rate, burst) as address:
            cases[name] = asyncio.run(measure(address, options))
        print(name, json.dumps(cases[name]["ratios"]), cases[name]["flood"], flush=True)
    found = {
        "cases": cases,
        "flood": options.flood,
        "machine": machine(),
        "load": os.getloadavg()[0],
        "date": datetime.now(UTC).date().isoformat(),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "isolation.json").write_text(json.dumps(found, indent=1) + "\n")
    (options.out / "isolation.md").write_text(page(found))


if __name__ == "__main__":
    main()
