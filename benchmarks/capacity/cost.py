"""Computes the monthly cost of a number of users from behaviour, measured figures and prices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.capacity.assumptions import Behaviour, Kept, Prices
from benchmarks.capacity.simulation import Hits, caches, sessions

DAY, DAYS, GIB = 86_400.0, 30.0, 2.0**30
SIMULATED = 60_000
"""Generations of a simulation, at most; the caches have long settled by then."""


@dataclass(frozen=True)
class Speed:
    """Measured on two cores: images a second, seconds of one update."""

    images: float
    update: float


@dataclass(frozen=True)
class Cost:
    """The cost of one number of users. A peak hour needs `pairs` of cores; `device_seconds` is a day's work on them."""

    users: int
    generations_per_second: float
    device_seconds: float
    pairs: float
    gpus: float
    redis_gib: float
    object_gib: float
    hits: Hits
    dollars: Mapping[str, float]


def cost(
    users: int,
    speed: Speed,
    size: Mapping[str, float],
    behaviour: Behaviour,
    kept: Kept,
    prices: Prices,
    slots: int,
    host: int,
) -> Cost:
    """A month of `users`."""
    active = users * behaviour.daily_active
    updates, generations = active * (behaviour.generations - 1), active * behaviour.generations
    work = generations * behaviour.items / speed.images + updates * speed.update
    pairs = behaviour.peak * work / DAY
    redis_bytes = (
        generations * behaviour.items * kept.item_days * size["item in Redis"]
        + (users + updates * kept.event_id_days) * size["user after one update in Redis"]
    )
    stored = users * kept.revisions * size["revision, replay full"]
    gpus = pairs / prices.gpu_speed
    dollars = {
        "Redis": redis_bytes / GIB * prices.redis_gib_month,
        "objects": stored / GIB * prices.object_gib_month,
        "cores": pairs * prices.two_cores_hour * 24 * DAYS,
        "GPUs instead": gpus * prices.gpu_hour * 24 * DAYS,
    }
    hits = _hits(users, active, behaviour, max(1.0, pairs), slots, host)
    return Cost(users, generations / DAY, work, pairs, gpus, redis_bytes / GIB, stored / GIB, hits, dollars)


def _hits(users: int, active: float, behaviour: Behaviour, replicas: float, slots: int, host: int) -> Hits:
    """Simulates the caches of one of `replicas` that share the load at random, for at most a peak hour."""
    rate = behaviour.peak * active / DAY / replicas
    seconds = SIMULATED / behaviour.generations / rate
    return caches(sessions(users, behaviour.zipf, rate, behaviour.generations, seconds, seed=0), slots, host)
