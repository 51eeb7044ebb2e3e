"""Runs attacks one after the other, with a healthy user beside each, and says what came of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import grpc
import psutil

from tests.attack.neighbour import Neighbour, Seen, neighbour
from tests.attack.result import Attack, Found, Target, quantile

QUIET_SECONDS = 4.0
GOAL = 2.0
"""Times the quiet p99 that the healthy user's may be during an attack."""
GROWTH = 512 * 2**20
"""Bytes by which the gateway may grow in all."""


@dataclass(frozen=True)
class Row:
    """`quiet` and `during` are the healthy user's p99 in seconds; nan where no call ended."""

    attack: str
    found: Found
    quiet: float
    during: float


async def attack(
    target: Target,
    process: psutil.Process,
    attacks: Sequence[Attack],
    scale: float,
    progress: Callable[[Row], None] = lambda row: None,
) -> list[Row]:
    """One row each. An attack has been withstood only when the healthy user's calls all succeeded meanwhile."""
    rows = []
    with neighbour(target.address, target.token_of("other")) as healthy:
        await _first_calls(healthy)
        before = process.memory_info().rss
        for each in attacks:
            quiet = await _seen_for(healthy, QUIET_SECONDS * scale)
            found = _judged(await _outcome(each, target, scale), process, before, during := await healthy.seen())
            rows.append(Row(each.name, found, quantile(quiet.seconds, 0.99), quantile(during.seconds, 0.99)))
            progress(rows[-1])
    return rows


async def _outcome(each: Attack, target: Target, scale: float) -> Found:
    """An attack that ends in an error it did not expect has met something that must not be."""
    try:
        return await each.run(target, scale)
    except (grpc.aio.AioRpcError, TimeoutError, OSError, AssertionError) as failure:
        return Found(False, f"{type(failure).__name__}: {str(failure).partition(chr(10))[0]}")


def _judged(found: Found, process: psutil.Process, before: int, during: Seen) -> Found:
    if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
        return Found(False, f"the gateway died; {found.what}")
    if during.failures:
        count = len(during.failures)
        return Found(False, f"{count} of the healthy user's calls failed ({during.failures[0]}); {found.what}")
    if (grown := process.memory_info().rss - before) > GROWTH:
        return Found(False, f"the gateway has grown by {grown / 2**20:.0f} MiB; {found.what}")
    return found


async def _first_calls(healthy: Neighbour) -> None:
    """Waits until the healthy user is served."""
    async with asyncio.timeout(60):
        while not (await healthy.seen()).seconds:  # noqa: ASYNC110 - another process brings it about
            await asyncio.sleep(0.2)


async def _seen_for(healthy: Neighbour, seconds: float) -> Seen:
    await healthy.seen()
    await asyncio.sleep(seconds)
    return await healthy.seen()


def table(rows: Sequence[Row]) -> str:
    """A line for each attack, those that were not withstood marked."""
    width = max(len(row.attack) for row in rows)
    lines = [f"{'attack':<{width}}  quiet p99  during   ×     what happened"]
    for row in rows:
        ratio = row.during / row.quiet
        mark = f"{'+' if ratio > GOAL else ' '} {'  ' if row.found.held else '!!'}"
        times = f"{row.quiet * 1e3:6.0f} ms  {row.during * 1e3:6.0f} ms  {ratio:4.1f}{mark}"
        lines.append(f"{row.attack:<{width}}  {times} {row.found.what}")
    broken = sum(not row.found.held for row in rows)
    slow = sum(row.during / row.quiet > GOAL for row in rows)
    lines.append(
        f"\n{len(rows)} attacks, {broken} not withstood (!!); healthy user's p99 above {GOAL:.0f} × in {slow} (+)"
    )
    return "\n".join(lines)
