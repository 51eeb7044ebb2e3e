"""Learning on the latents of a text backbone: by taste, and what the bounds' β does there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from benchmarks.alignment.aggregate import Loaded, grouped
from benchmarks.alignment.figures.drawing import Figure, command, panels, taste
from benchmarks.alignment.runs import Run


def figures(loaded: Mapping[str, Loaded]) -> Iterator[Figure]:
    """One figure."""
    if runs := {run: records for run, records in loaded["latent"].items() if run.system != "base"}:
        yield Figure("latent", "A latent text backbone", panels(grouped(runs, label)), compares=False)


def label(run: Run) -> str:
    """The taste, and what in a run is not the product."""
    if run.system == "base":
        return f"{taste(run.taste)}, the backbone alone"
    return taste(run.taste) + (", the pixels' β" if run.overrides else "")


if __name__ == "__main__":
    command(figures)
