"""Figure 25: PAPA (K = 0) against EPAPA (K = 400), by our update and by the reference recipe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from benchmarks.alignment.aggregate import Loaded, grouped
from benchmarks.alignment.figures.drawing import Figure, command, panels
from benchmarks.alignment.figures.k_sweep import label
from benchmarks.alignment.grid import TUNED

KINDS = {"K = 0": "PAPA, K = 0", "K = 400": "EPAPA, K = 400"}


def figures(loaded: Mapping[str, Loaded]) -> Iterator[Figure]:
    """Ours over steps; the reference over the steps of its sweep."""
    ours = {run: records for run, records in loaded["k-sweep"].items() if label(run) in KINDS}
    if ours:
        lines = grouped(ours, lambda run: KINDS[label(run)])
        yield Figure("epapa", "PAPA against EPAPA, our update", panels(lines), experiments=("k-sweep",))
    tuned = {r: x for r, x in loaded["reference"].items() if dict(r.overrides)["learning_rate"] == TUNED}
    if shared := {run: records for run, records in tuned.items() if run.rounds == 10}:
        lines = grouped(shared, lambda run: run.system)
        yield Figure(
            "epapa_reference", "PAPA against EPAPA, reference recipe", panels(lines), experiments=("reference",)
        )


if __name__ == "__main__":
    command(figures)
