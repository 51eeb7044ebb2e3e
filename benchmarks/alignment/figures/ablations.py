"""Figures 9, 10 and 17 to 20: without each term, with one term alone; and what else keeps a taste whole.

The product's default has η = 0, so that "without L^QPDE" is the default itself and its opposite has η = 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from benchmarks.alignment.aggregate import Loaded, grouped
from benchmarks.alignment.figures.drawing import Figure, command, panels
from benchmarks.alignment.grid import ABLATIONS, KEEPING, Changes
from benchmarks.alignment.runs import Run


def named(changes: Changes) -> Callable[[Run], str]:
    """Returns the function that names a run after the overrides that it changes."""
    return lambda run: next(name for name, change in changes.items() if change == run.overrides)


label, kept = named(ABLATIONS), named(KEEPING)


def figures(loaded: Mapping[str, Loaded]) -> Iterator[Figure]:
    """One line per ablation; two figures."""
    for name, title, naming in (
        ("ablations", "Without each term, with one term alone", label),
        ("keeping", "What keeps several tastes alive: {4, 8}", kept),
    ):
        if loaded[name]:
            yield Figure(name, title, panels(grouped(loaded[name], naming)))


if __name__ == "__main__":
    command(figures)
