"""Aggregates the records of runs into the figures that tables and plots show."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean, pstdev
from typing import Any

from benchmarks.alignment.runs import Run
from papa.alignment import labels_to

Records = list[dict[str, Any]]
Loaded = Mapping[Run, Records]


@dataclass(frozen=True)
class Curve:
    """Mean and standard deviation over runs at each interaction step where any was measured."""

    steps: list[int]
    mean: list[float]
    deviation: list[float]
    runs: int


def curve(runs: Iterable[Records], measure: str = "success", axis: str = "step") -> Curve:
    """Steps at which only some of the runs were measured are left out."""
    found: dict[int, list[float]] = defaultdict(list)
    count = 0
    for records in runs:
        count += 1
        for record in records:
            if record.get(measure) is not None:
                found[int(record[axis])].append(float(record[measure]))
    steps = sorted(step for step, values in found.items() if len(values) == count)
    values = [found[step] for step in steps]
    return Curve(steps, [fmean(each) for each in values], [pstdev(each) for each in values], count)


def distinct(loaded: Mapping[str, Loaded]) -> Loaded:
    """The runs of all experiments; one that several share is one."""
    return {run: records for runs in loaded.values() for run, records in runs.items()}


def grouped(loaded: Loaded, key: Callable[[Run], Hashable]) -> dict[Any, list[Records]]:
    """The records of all runs by `key` of the run, in the order in which they come."""
    groups: dict[Any, list[Records]] = {}
    for run, records in loaded.items():
        groups.setdefault(key(run), []).append(records)
    return groups


@dataclass(frozen=True)
class Reached:
    """The results of a group of runs; `at` maps interaction steps to mean success. None: nothing was measured."""

    runs: int
    at: dict[int, float]
    success: float | None
    success_deviation: float | None
    coverage: float | None
    worst_coverage: float | None
    frechet: float | None
    labels_to_90: float | None
    """Mean over the runs that reached 0.9."""
    reached_90: int
    cost_per_step: float | None
    cost_to_90: float | None
    seconds_per_step: float | None
    diverged: int


def reached(runs: list[Records], steps: tuple[int, ...] = (10, 20, 30)) -> Reached:
    """Summarises the runs, from their last records and from those at the interaction steps `steps`."""
    last = [records[-1] for records in runs]
    firsts = [_first_at_90(records) for records in runs]
    hit = [record for record in firsts if record is not None]
    at = {step: fmean(values) for step in steps if len(values := _values(runs, step)) == len(runs) and values}
    learnt = [record for record in last if record["step"]]
    return Reached(
        runs=len(runs),
        at=at,
        success=_mean(last, "success"),
        success_deviation=pstdev([r["success"] for r in last]) if all("success" in r for r in last) else None,
        coverage=_mean(last, "coverage"),
        worst_coverage=min((r["coverage"] for r in last if r.get("coverage") is not None), default=None),
        frechet=_mean(last, "frechet"),
        labels_to_90=fmean([r["labels"] for r in hit]) if hit else None,
        reached_90=len(hit),
        cost_per_step=fmean([r["cost"] / r["step"] for r in learnt]) if learnt else None,
        cost_to_90=fmean([r["cost"] for r in hit]) if hit else None,
        seconds_per_step=fmean([r["seconds"] / r["step"] for r in learnt]) if learnt else None,
        diverged=sum(any(r.get("diverged") for r in records) or _collapsed(records) for records in runs),
    )


def _collapsed(records: Records) -> bool:
    """Ends below half of the backbone's own success: worse than having learnt nothing."""
    measured = [r["success"] for r in records if r.get("success") is not None]
    return len(measured) > 1 and measured[-1] < 0.5 * measured[0]


def _values(runs: list[Records], step: int) -> list[float]:
    return [r["success"] for records in runs for r in records if r["step"] == step and r.get("success") is not None]


def _first_at_90(records: Records) -> dict[str, Any] | None:
    measured = [r for r in records if r.get("success") is not None]
    first = labels_to(0.9, [r["labels"] for r in measured], [r["success"] for r in measured])
    return next((r for r in measured if first is not None and r["labels"] == first), None)


def _mean(records: Records, name: str) -> float | None:
    values = [r[name] for r in records if r.get(name) is not None]
    return fmean(values) if values and all(map(math.isfinite, values)) else None
