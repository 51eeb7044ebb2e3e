"""Continuous against static batching under the same Poisson load of mixed counts and numbers of steps.

Static means: whole batches, which nobody joins until the last row has left. Rows that are done leave and are delivered
at once also there, which is more than most static batching does; joining at every step is the only difference.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any

from papa_serving.contracts.errors import PapaError
from papa_serving.contracts.identity import UserKey
from papa_serving.generator.engine import Engine, EngineConfig
from papa_serving.generator.job import AdapterKey, FinishedRows, HostAdapter, Job
from papa_serving.generator.slots import Slots

from benchmarks.engine.passes import SAMPLER, random_adapters
from benchmarks.engine.record import percentile
from papa.config import DEFAULT_UPDATE
from papa.denoiser import Denoiser

COUNTS, STEPS, USERS = (1, 2, 4, 8), (6, 12, 25), 32
LOADS = (0.5, 0.7, 0.85)
"""Shares of what the engine can do at most."""

SECONDS = 30.0
"""Seconds of arrivals at each load."""


class StaticEngine(Engine):
    """Lets rows in only when no row runs."""

    def _change(self) -> None:
        if not self._batch.rows:
            super()._change()


@dataclass(frozen=True)
class Arrival:
    """A generation to come, `at` seconds after the start."""

    at: float
    user: int
    count: int
    steps: int


def arrivals(rate: float, seconds: float, seed: int) -> list[Arrival]:
    """A Poisson process of `rate` generations a second."""
    draw, at, found = random.Random(seed), 0.0, list[Arrival]()
    while (at := at + draw.expovariate(rate)) < seconds:
        found.append(Arrival(at, draw.randrange(USERS), draw.choice(COUNTS), draw.choice(STEPS)))
    return found


def compare(denoiser: Denoiser, loads: Sequence[float] = LOADS, seconds: float = SECONDS) -> dict[str, Any]:
    """p50 and p95 of a generation by load, of both kinds; every load's arrivals are the same for both."""
    work = sum(COUNTS) / len(COUNTS) * sum(STEPS) / len(STEPS)
    most = _row_steps_per_second(denoiser) / work
    curves: dict[str, list[dict[str, float]]] = {"continuous": [], "static": []}
    for number, load in enumerate(loads):
        expected = arrivals(load * most, seconds, seed=number)
        kinds = [("continuous", Engine), ("static", StaticEngine)]
        for kind, engine in kinds if number % 2 == 0 else kinds[::-1]:
            curves[kind].append({"load": load, **replay(denoiser, engine, expected)})
    return {"most": most, "curves": curves, "figures": _figures(curves)}


def replay(denoiser: Denoiser, kind: type[Engine], expected: Sequence[Arrival]) -> dict[str, float]:
    """Latencies under these arrivals."""
    slots = Slots(USERS, denoiser.layout.size, denoiser.device, denoiser.dtype)
    engine = kind(denoiser, slots, EngineConfig(max_queued_rows=1_000_000, adapt_from=DEFAULT_UPDATE.adapt_from))
    adapters = [
        HostAdapter(AdapterKey(UserKey("bench", f"u{user}"), "r"), weights)
        for user, weights in enumerate(random_adapters(denoiser, USERS))
    ]
    engine.start()
    try:
        begun = time.monotonic()
        calls = []
        for arrival in expected:
            time.sleep(max(0.0, begun + arrival.at - time.monotonic()))
            calls.append(Call(engine, arrival, adapters[arrival.user]))
        latencies = [call.wait() for call in calls]
        spent = time.monotonic() - begun
    finally:
        engine.stop()
    items = sum(arrival.count for arrival in expected)
    sizes = [arrival.count * arrival.steps for arrival in expected]
    smaller = [each for each, size in zip(latencies, sizes, strict=True) if size <= median(sizes)]
    return {
        "items_per_second": items / spent,
        "p50": percentile(latencies, 0.5),
        "p95": percentile(latencies, 0.95),
        "p95_smaller": percentile(smaller, 0.95),
        "generations": len(expected),
    }


class Call:
    """A generation under way."""

    def __init__(self, engine: Engine, arrival: Arrival, adapter: HostAdapter) -> None:
        self._left, self._done = arrival.count, threading.Event()
        self._error: PapaError | None = None
        self._begun = self._ended = time.monotonic()
        engine.inbox.reserve(adapter.key.user, arrival.count, arrival.steps)
        job = Job(adapter.key.user, arrival.count, 0, SAMPLER, arrival.steps, self._take, adapter)
        engine.inbox.submit(job)

    def _take(self, result: FinishedRows | PapaError) -> None:
        if isinstance(result, PapaError):
            self._error = result
            self._left = 0
        else:
            self._left -= len(result.indexes)
        if self._left <= 0:
            self._ended = time.monotonic()
            self._done.set()

    def wait(self) -> float:
        """Seconds from asking to the last item."""
        self._done.wait()
        if self._error is not None:
            raise self._error
        return self._ended - self._begun


def _row_steps_per_second(denoiser: Denoiser) -> float:
    """The throughput of a batch that is as full as such loads make it."""
    burst = [Arrival(0.0, user, 1, 12) for user in range(USERS)]
    replay(denoiser, Engine, burst[:4])
    return 12 * replay(denoiser, Engine, burst)["items_per_second"]


def _figures(curves: dict[str, list[dict[str, float]]]) -> dict[str, float]:
    """Ratios at the middle load, and how much more continuous batching carries at static batching's p95 there."""
    middle = len(curves["static"]) // 2
    static, continuous = curves["static"][middle], curves["continuous"][middle]
    return {
        "load (share of the most)": static["load"],
        "p50, static ÷ continuous": static["p50"] / continuous["p50"],
        "p95, static ÷ continuous": static["p95"] / continuous["p95"],
        "p95 of the smaller half, static ÷ continuous": static["p95_smaller"] / continuous["p95_smaller"],
        "throughput at equal p95": _carried(curves["continuous"], static["p95"]) / static["items_per_second"],
    }


def _carried(curve: list[dict[str, float]], p95: float) -> float:
    """Items per second where the curve reaches `p95`, between measured points; the last point's when it never does."""
    points = sorted(curve, key=lambda point: point["items_per_second"])
    for low, high in pairwise(points):
        if low["p95"] <= p95 < high["p95"]:
            share = (p95 - low["p95"]) / (high["p95"] - low["p95"])
            return low["items_per_second"] + share * (high["items_per_second"] - low["items_per_second"])
    return max((point["items_per_second"] for point in points if point["p95"] <= p95), default=0.0)
