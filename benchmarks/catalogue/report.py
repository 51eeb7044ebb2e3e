"""The table of whatever cells are there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import mean
from typing import Any

from benchmarks.catalogue.rivals import RIVALS
from benchmarks.catalogue.simulate import OURS

MEASURES = {"precision": "precision@10", "coverage": "coverage@10", "ece": "calibration error"}


def tables(records: Iterable[Mapping[str, Any]]) -> str:
    """Markdown: for each data set and share of flipped labels one table, of means over tastes and seeds."""
    parts: dict[tuple[str, float], list[Mapping[str, Any]]] = defaultdict(list)
    for record in records:
        parts[record["dataset"], record["flipped"]].append(record)
    return "\n\n".join(_table(dataset, flipped, part) for (dataset, flipped), part in sorted(parts.items()))


def _table(dataset: str, flipped: float, records: Sequence[Mapping[str, Any]]) -> str:
    labels = sorted({record["labels"] for record in records})
    tastes = sorted({tuple(record["taste"]) for record in records})
    seeds = sorted({record["seed"] for record in records})
    told = ", ".join("{" + ", ".join(map(str, taste)) + "}" for taste in tastes)
    lines = [
        f"{dataset}, {flipped:.0%} of the labels flipped; tastes {told}; seeds {', '.join(map(str, seeds))}.",
        "",
        "| system | " + " | ".join(f"{title}, {n} labels" for title in MEASURES.values() for n in labels) + " |",
        "|---|" + "---|" * len(MEASURES) * len(labels),
    ]
    for system in (OURS, *RIVALS):
        mine = [record for record in records if record["system"] == system]
        cells = [_mean(mine, measure, n) for measure in MEASURES for n in labels]
        lines.append(f"| {system} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _mean(records: Sequence[Mapping[str, Any]], measure: str, labels: int) -> str:
    found = [r[measure] for r in records if r["labels"] == labels and r[measure] is not None]
    return f"{mean(found):.2f}" if found else "–"
