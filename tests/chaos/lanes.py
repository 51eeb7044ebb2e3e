"""Several schedules at a time: most of one is waiting."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.chaos.nursery import Nursery
from tests.chaos.run import Result, run
from tests.chaos.schedule import Schedule

LANES = 6


async def perform(plans: Sequence[Schedule], root: Path, lanes: int = LANES, defect: str = "") -> list[Result]:
    """All of them, in the order of their seeds."""
    waiting, results = iter(plans), list[Result]()
    with Nursery() as nursery:

        async def lane() -> None:
            for plan in waiting:
                results.append(await run(plan, nursery, root, defect))
                if sys.stderr.isatty():
                    print(f"\r{len(results)}/{len(plans)}", end="", file=sys.stderr, flush=True)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(lanes, len(plans))):
                group.create_task(lane())
    return sorted(results, key=lambda result: result.schedule.seed)
