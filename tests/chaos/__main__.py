"""`make chaos`: many seeded schedules, a table of what went wrong and what came of it; `SEED=n` replays one."""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from tests.chaos.cable import unavailable
from tests.chaos.lanes import LANES, perform
from tests.chaos.run import Result
from tests.chaos.schedule import schedule
from tests.chaos.table import table
from tests.record import record

SCHEDULES = 1008


def main() -> int:
    """0 when no promise was broken."""
    options = _options()
    root = Path(options.folder or tempfile.mkdtemp(prefix="papa-chaos-"))
    seeds = range(options.first, options.schedules) if options.seed is None else [options.seed]
    plans = [schedule(seed) for seed in seeds]
    begun = time.monotonic()
    results = asyncio.run(perform(plans, root, options.lanes, options.defect, 60 * options.minutes))
    lines = [
        table(results),
        f"{len(results)} of {len(plans)} schedules in {time.monotonic() - begun:.0f} s, {options.lanes} at a time; "
        f"seeds {seeds[0]} to {seeds[-1]}",
        f"partitions of trainers: {(unavailable() and f'by the proxy, since {unavailable()}') or 'network namespaces'}",
        *(_report(result, root) for result in results if result.violations),
    ]
    print("\n".join(lines))
    if options.record:
        record("chaos", "Histories under faults", "make chaos ARGS=--record", "\n".join(lines))
    if options.seed is not None:
        print(json.dumps(asdict(results[0].schedule), indent=1))
    return int(any(result.violations for result in results))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--seed", type=int, help="replay this one, and print its schedule")
    parser.add_argument("--schedules", type=int, default=SCHEDULES)
    parser.add_argument("--first", type=int, default=0, help="the seed to begin with")
    parser.add_argument("--lanes", type=int, default=LANES, help="schedules at a time")
    parser.add_argument("--minutes", type=float, default=math.inf, help="after which no further one begins")
    parser.add_argument("--folder", help="where the logs and the data of runs with violations stay")
    parser.add_argument("--record", action="store_true", help="write what is printed to docs/results/chaos.md")
    parser.add_argument("--defect", default="", help="break it on purpose (tests.chaos.defects)")
    return parser.parse_args()


def _report(result: Result, root: Path) -> str:
    seed = result.schedule.seed
    head = f"\nseed {seed} ({', '.join(fault.kind for fault in result.schedule.faults)}):"
    violations = [f"  {violation.rule}: {violation.user} {violation.what}" for violation in result.violations]
    return "\n".join([head, *violations, f"  kept: {root / f'seed-{seed}'}; replay: make chaos SEED={seed}"])


if __name__ == "__main__":
    sys.exit(main())
