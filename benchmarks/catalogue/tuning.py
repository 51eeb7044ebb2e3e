"""The constants of the rivals: the grid that was tried, on tastes that are not reported, and what was chosen.

python -m benchmarks.catalogue.tuning

It measures every rival of `GRID` on `TASTES` after 10, 20 and 50 labels. A setting's line has its precision@10 and
coverage@10, means over all of these, and the best sum of a rival comes first. The constants in
`benchmarks.catalogue.rivals` are those of the best precision for a rival that orders by a score alone, and of the best
sum for a diverse one:

| rival | chosen | precision | coverage | the grid's range of precision |
|---|---|---|---|---|
| Logistic | penalty 0.3 | 0.934 | 0.476 | 0.922 to 0.934 |
| DiverseLogistic | diversity 0.1 | 0.919 | 0.570 | 0.890 to 0.919 |
| LinUcb | ridge 1, width 0.3 | 0.863 | 0.539 | 0.721 to 0.863 |
| DiverseLinUcb | diversity 0.1 | 0.868 | 0.613 | 0.841 to 0.868 |
| Thompson | ridge 1, width 0.3 | 0.876 | 0.565 | 0.738 to 0.876 |

(28 November 2026; DiverseLogistic was tried with a penalty of 0.1, which differs by less than the noise.)
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.alignment.world import DATA
from benchmarks.catalogue.rivals import DiverseLinUcb, DiverseLogistic, LinUcb, Logistic, Scored, Thompson
from benchmarks.catalogue.simulate import Cell, measured, standardised
from benchmarks.catalogue.stock import Stock, stock

TASTES = {
    "fashion_mnist": ((1, 3, 8), (2, 8), (6, 8), (0, 4, 9), (0, 1, 5)),
    "mnist": ((3, 6),),
}
REPORTED = {
    "fashion_mnist": ((4, 8), (0, 3, 8), (1, 2, 6), (5, 7, 9), (1, 3, 5, 7)),
    "mnist": ((2, 5), (1, 4, 7, 9), (0, 3, 8)),
}
"""The tastes of docs/results/catalogue.md."""
SEED = 11
LABELS = (10, 20, 50)
RIDGES, WIDTHS, PENALTIES, DIVERSITIES = (0.1, 0.3, 1.0, 3.0), (0.1, 0.3, 1.0), (0.01, 0.03, 0.1, 0.3, 1.0), (0.1, 0.3)
GRID: dict[type[Scored], dict[str, tuple[float, ...]]] = {
    Logistic: {"penalty": PENALTIES},
    DiverseLogistic: {"diversity": DIVERSITIES},
    LinUcb: {"ridge": RIDGES, "width": WIDTHS},
    DiverseLinUcb: {"diversity": DIVERSITIES},
    Thompson: {"ridge": RIDGES, "width": WIDTHS},
}
"""The diverse rivals take the other constants of those without diversity."""


def main(arguments: list[str] | None = None) -> int:
    """Prints a line for each rival and each of its settings, the best of a rival first."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.catalogue.tuning", description="Tune the rivals.")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the data sets")
    parser.add_argument("--kept", type=Path, help="folder of the embeddings; in that of the data sets when absent")
    options = parser.parse_args(arguments)
    kept = options.data / "embeddings" if options.kept is None else options.kept
    for rival, grid in GRID.items():
        tried = [(measures(options.data, kept, rival, setting), setting) for setting in settings(grid)]
        for (precision, coverage), setting in sorted(tried, key=lambda each: -sum(each[0])):
            told = " ".join(f"{name}={value:g}" for name, value in setting.items())
            print(f"{rival.__name__} {told}: precision {precision:.3f}, coverage {coverage:.3f}", flush=True)
    return 0


def settings(grid: dict[str, tuple[float, ...]]) -> Iterator[dict[str, float]]:
    """Every combination."""
    for values in product(*grid.values()):
        yield dict(zip(grid, values, strict=True))


def measures(data: Path, kept: Path, rival: type[Scored], setting: dict[str, float]) -> tuple[float, float]:
    """Precision and coverage, means over the tastes and numbers of labels."""
    records = []
    for dataset, tastes in TASTES.items():
        pictures = stock(dataset, data, kept)
        for taste in tastes:
            records += trial(rival, setting, Cell(dataset, taste, LABELS, SEED), pictures)
    return fmean(each["precision"] for each in records), fmean(each["coverage"] for each in records)


def trial(rival: type[Scored], setting: dict[str, float], cell: Cell, pictures: Stock) -> list[dict[str, Any]]:
    """The records of a rival with these constants."""
    system = type(rival.__name__, (rival,), dict(setting))(standardised(pictures))
    return list(measured(cell, pictures, rival.__name__, system))


if __name__ == "__main__":
    sys.exit(main())
