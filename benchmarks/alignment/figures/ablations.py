"""Figures 9, 10 and 17 to 20: without each term, with one term alone.

The product's default has η = 0, so that "without L^QPDE" is the default itself and its opposite has η = 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from benchmarks.alignment.aggregate import Loaded, grouped
from benchmarks.alignment.figures.drawing import Figure, command, panels
from benchmarks.alignment.grid import ABLATIONS
from benchmarks.alignment.runs import Run


def label(run: Run) -> str:
    """What an ablation is called."""
    return next(name for name, change in ABLATIONS.items() if change == run.overrides)


def figures(loaded: Mapping[str, Loaded]) -> Iterator[Figure]:
    """One line per ablation; two figures."""
    if loaded["ablations"]:
        lines = grouped(loaded["ablations"], label)
        yield Figure("ablations", "Without each term, with one term alone", panels(lines))
    if loaded["keeping"]:
        lines = grouped(loaded["keeping"], label)
        yield Figure("keeping", "What keeps several tastes alive: {4, 8}", panels(lines))


if __name__ == "__main__":
    command(figures)
