"""From a seed to a schedule: who says what when, and what goes wrong meanwhile. Nothing else is random."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

POINTS = ("after_read", "after_training", "after_blob", "before_commit", "after_commit")

KINDS = (
    "none",
    "kill trainer",
    *(f"kill trainer {point}" for point in POINTS),
    "stop trainer",
    "stop trainer before_commit",
    "stop trainer after_blob",
    "kill gateway",
    "roll gateway",
    "roll trainer",
    "kill redis",
    "lose replies",
    "lose replies silently",
    "partition trainer",
    "partition gateway",
    "clock step",
    "redis full",
    "poison",
    "flawed",
    "delete in flight",
    "rollback in flight",
    "kill generator",
    "kill trainer, real update",
    "kill redis, real update",
)
"""Every kind of fault."""

REAL = KINDS[-3:]
"""Those whose update is the real one and whose callers generate, on a real engine."""

Sync = Literal["everysec", "always"]


@dataclass(frozen=True)
class Fault:
    """At `at` seconds into the workload; it lasts `seconds` where it lasts. `late`: see Proxy.heal."""

    kind: str
    at: float
    seconds: float
    late: bool
    count: int


@dataclass(frozen=True)
class Visitor:
    """One user's calls: after each pause (seconds) so many events; `gives_up`: does not repeat what failed once."""

    name: str
    calls: tuple[tuple[float, int], ...]
    gives_up: bool
    reads: bool
    moves: tuple[tuple[str, float], ...] = ()
    special: str = ""
    generates: bool = False


@dataclass(frozen=True)
class Schedule:
    """One run. `kind` is what the table counts it under; `faults` holds it and perhaps another one."""

    seed: int
    kind: str
    appendfsync: Sync
    trainers: int
    visitors: tuple[Visitor, ...]
    faults: tuple[Fault, ...]

    @property
    def real(self) -> bool:
        """Whether there is a generator, and learning is the real one."""
        return self.kind in REAL


def schedule(seed: int, kinds: tuple[str, ...] = KINDS, also: str | None = None) -> Schedule:
    """The same for the same arguments, always. The kinds take turns; some come with another one, unless `also`
    says with which ("" = with none)."""
    source = random.Random(seed)
    kind = kinds[seed % len(kinds)]
    named = [kind]
    if also is not None:
        named += [also] if also else []
    elif kind != "none" and source.random() < 0.4:
        named.append(source.choice(KINDS[: -len(REAL)]))
    faults = tuple(_fault(source, each) for each in named if each != "none")
    visitors = tuple(_visitor(source, seed, number, named) for number in range(source.randint(2, 3)))
    sync: Sync = source.choice(("everysec", "always"))
    return Schedule(seed, kind, sync, source.randint(1, 2), visitors, faults)


def _fault(source: random.Random, kind: str) -> Fault:
    return Fault(kind, source.uniform(0.02, 0.3), source.uniform(0.1, 0.9), source.random() < 0.5, source.randint(1, 4))


def _visitor(source: random.Random, seed: int, number: int, kinds: list[str]) -> Visitor:
    calls = tuple((source.uniform(0.0, 0.3), source.randint(1, 4)) for _ in range(source.randint(3, 6)))
    moves, special = (), ""
    first = number == 0
    if first and "delete in flight" in kinds:
        moves = (("delete", source.uniform(0.05, 0.4)),)
    if first and "rollback in flight" in kinds:
        moves = tuple((source.choice(("rollback", "reset")), source.uniform(0.05, 0.3)) for _ in range(2))
    if first and "poison" in kinds:
        special = "poison"
    if first and "flawed" in kinds:
        special = "flawed"
    return Visitor(
        f"s{seed}-u{number}", calls, gives_up=source.random() < 0.2, reads=source.random() < 0.7, moves=moves,
        special=special, generates=kinds[0] in REAL,
    )  # fmt: skip
