"""Several schedules at a time: most of one is waiting."""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.chaos.nursery import CHILDREN, LEARNING, Nursery
from tests.chaos.run import Result, run
from tests.chaos.schedule import Schedule

LANES = 6
NEEDED = {False: (CHILDREN,), True: (CHILDREN, LEARNING)}


async def perform(
    plans: Sequence[Schedule], root: Path, lanes: int = LANES, defect: str = "", seconds: float = math.inf
) -> list[Result]:
    """All of them, or as many as begin within so many `seconds`, in the order of their seeds."""
    waiting, results, end = iter(plans), list[Result](), time.monotonic() + seconds
    with ExitStack() as stack:
        # What has imported torch forks slowly, so that only those who learn for real come from there.
        nurseries = {real: stack.enter_context(Nursery(*NEEDED[real])) for real in {p.real for p in plans}}

        async def lane() -> None:
            while time.monotonic() < end and (plan := next(waiting, None)):
                results.append(await run(plan, nurseries[plan.real], root, defect))
                if sys.stderr.isatty():
                    print(f"\r{len(results)}/{len(plans)}", end="", file=sys.stderr, flush=True)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(lanes, len(plans))):
                group.create_task(lane())
    return sorted(results, key=lambda result: result.schedule.seed)
