"""Figure 22: the timestep K from which on the adapter works and learns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from benchmarks.alignment.aggregate import Loaded, grouped
from benchmarks.alignment.figures.drawing import Figure, command, panels
from benchmarks.alignment.runs import Run
from papa.config import DEFAULT_UPDATE


def label(run: Run) -> str:
    """A run's K."""
    return f"K = {dict(run.overrides).get('adapt_from', DEFAULT_UPDATE.adapt_from)}"


def figures(loaded: Mapping[str, Loaded]) -> Iterator[Figure]:
    """One line per K."""
    if loaded["k-sweep"]:
        lines = grouped(loaded["k-sweep"], label)
        yield Figure("k-sweep", "From which timestep on the adapter works", panels(lines))


if __name__ == "__main__":
    command(figures)
