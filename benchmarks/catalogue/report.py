"""The tables of whatever cells are there: means over tastes with intervals, what is missing, and who is ahead."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from papa_serving.attribution.lift import student

from benchmarks.catalogue.rivals import RIVALS
from benchmarks.catalogue.simulate import OURS, SYSTEMS, calibration_error

Record = Mapping[str, Any]
Values = dict[tuple[str, tuple[int, ...]], float]
"""A figure for each data set and taste."""


def _pooled(records: Sequence[Record]) -> float:
    """The calibration error of all recommended items of these records together."""
    return calibration_error([record["recommended"] for record in records])


def _mean_of(field: str) -> Callable[[Sequence[Record]], float]:
    return lambda records: fmean(record[field] for record in records)


MEASURES: dict[str, tuple[str, Callable[[Sequence[Record]], float], int]] = {
    "precision@10": ("precision", _mean_of("precision"), 1),
    "coverage@10": ("coverage", _mean_of("coverage"), 1),
    "calibration error, all items": ("ece", _mean_of("ece"), -1),
    "calibration error, recommended items": ("recommended", _pooled, -1),
}
"""The field of the records, the figure of the records of one taste, and whether more (1) or less (−1) is better."""


def tables(records: Iterable[Record]) -> str:
    """Markdown: for each data set and share of flipped labels, and for all data sets together, one table a measure.

    A record that is there twice counts once. Raises ValueError where two records of the same cell differ.
    """
    parts: dict[tuple[float, str], list[Record]] = defaultdict(list)
    for record in _once(records):
        parts[record["flipped"], record["dataset"]].append(record)
    for flipped in {flipped for flipped, _ in parts}:
        together = [name for each, name in parts if each == flipped]
        if len(together) > 1:
            parts[flipped, " and ".join(sorted(together))] = [r for name in together for r in parts[flipped, name]]
    return "\n\n".join(_part(dataset, flipped, part) for (flipped, dataset), part in sorted(parts.items()))


def _once(records: Iterable[Record]) -> list[Record]:
    found: dict[tuple[Any, ...], Record] = {}
    for record in records:
        name = (*_cell(record), record["flipped"], record["system"], record["labels"])
        if found.setdefault(name, record) != record:
            raise ValueError(f"two records of {name} differ: they are of different versions, so remove one")
    return list(found.values())


def _cell(record: Record) -> tuple[str, tuple[int, ...], int]:
    return record["dataset"], tuple(record["taste"]), record["seed"]


def _part(dataset: str, flipped: float, records: Sequence[Record]) -> str:
    labels = sorted({record["labels"] for record in records})
    cells = sorted({_cell(record) for record in records})
    tastes = sorted({(name, taste) for name, taste, _ in cells})
    told = ", ".join(f"{name} {_set(taste)}" for name, taste in tastes)
    lines = [
        f"### {dataset}, {flipped:.0%} of the labels flipped",
        "",
        f"{len(cells)} cells: the tastes {told}; seeds {', '.join(map(str, sorted({seed for *_, seed in cells})))}.",
    ]
    if missing := _missing(records, cells, labels):
        lines += ["", "Missing: " + "; ".join(missing) + "."]
    for title in MEASURES:
        by_system = {system: [_values(records, system, title, n) for n in labels] for system in SYSTEMS}
        if not any(map(any, by_system.values())):
            continue
        lines += ["", f"| {title} after | " + " | ".join(f"{n} labels" for n in labels) + " |"]
        lines.append("|---|" + "---|" * len(labels))
        for system, values in by_system.items():
            if any(values):
                lines.append(f"| {system} | " + " | ".join(map(_interval, values)) + " |")
        lines += ["", f"Ahead of {OURS}: {_ahead(by_system, title, labels)}."]
    return "\n".join(lines)


def _missing(
    records: Sequence[Record], cells: Sequence[tuple[str, tuple[int, ...], int]], labels: Sequence[int]
) -> list[str]:
    """The systems of a cell without a record for each number of labels, and the seeds that a taste lacks."""
    there = {(*_cell(record), record["system"], record["labels"]) for record in records}
    seeds = sorted({seed for *_, seed in cells})
    missing = []
    for name, taste in sorted({cell[:2] for cell in cells}):
        for seed in seeds:
            without = [s for s in SYSTEMS if any((name, taste, seed, s, n) not in there for n in labels)]
            if without:
                who = "all" if len(without) == len(SYSTEMS) else ", ".join(without)
                missing.append(f"{name} {_set(taste)} seed {seed} ({who})")
    return missing


def _values(records: Sequence[Record], system: str, title: str, labels: int) -> Values:
    field, figure, _ = MEASURES[title]
    parts: dict[tuple[str, tuple[int, ...]], list[Record]] = defaultdict(list)
    for record in records:
        if (record["system"], record["labels"]) == (system, labels) and record[field] is not None:
            parts[record["dataset"], tuple(record["taste"])].append(record)
    return {taste: figure(part) for taste, part in parts.items()}


def _interval(values: Values) -> str:
    """The mean over the tastes and the half width of its 95 % interval: seeds of a taste are not independent, tastes
    are."""
    if not values:
        return "–"
    return f"{fmean(values.values()):.2f}{_half(list(values.values()))}"


def _half(values: Sequence[float]) -> str:
    """Nothing with fewer than three tastes, which say too little of how tastes differ."""
    if len(values) < 3:
        return ""
    return f" ± {student(len(values) - 1) * stdev(values) / math.sqrt(len(values)):.2f}"


def _ahead(by_system: Mapping[str, Sequence[Values]], title: str, labels: Sequence[int]) -> str:
    """The rivals with a better mean over the tastes that both have, with the difference and its interval."""
    better, found = MEASURES[title][2], []
    for system in RIVALS:
        for n, ours, theirs in zip(labels, by_system[OURS], by_system[system], strict=True):
            apart = [theirs[taste] - ours[taste] for taste in ours.keys() & theirs.keys()]
            if apart and better * fmean(apart) >= 0.005:
                found.append(f"{system} after {n} ({fmean(apart):+.2f}{_half(sorted(apart))})")
    return "; ".join(found) or "none"


def _set(taste: Sequence[int]) -> str:
    return "{" + ", ".join(map(str, taste)) + "}"
