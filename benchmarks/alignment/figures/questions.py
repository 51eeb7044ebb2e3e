"""Figures on questions that the paper leaves open: flipped labels, labels per step, changing tastes, active selection
and exploration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from benchmarks.alignment.aggregate import Loaded, grouped
from benchmarks.alignment.figures.drawing import Figure, command, panels, taste
from benchmarks.alignment.runs import Run


def figures(loaded: Mapping[str, Loaded]) -> Iterator[Figure]:
    """One figure per question that has runs."""
    if runs := loaded["noise"]:
        lines = grouped(runs, noisy)
        yield Figure("noise", "Flipped labels", panels(lines))
    if runs := loaded["per-step"]:
        lines = grouped(runs, lambda run: f"{run.labels} labels a step")
        yield Figure("per-step", "Labels per interaction step", panels(lines, "labels"), "labels")
    if runs := loaded["drift"]:
        lines = grouped(runs, turned)
        yield Figure("drift", "The taste changes after 15 of 30 steps", panels(lines), compares=False)
    if runs := loaded["active"]:
        lines = grouped(runs, lambda run: "10 of 40" if run.candidates else "first 10")
        yield Figure("active", "10 of 40 candidates shown, against the first 10", panels(lines))
    if runs := loaded["exploration"]:
        yield Figure("exploration", "A share of the items shown from the backbone", panels(grouped(runs, explored)))


def explored(run: Run) -> str:
    """The label of a run with a share of its items from the backbone."""
    return f"{taste(run.taste)}, {dict(run.overrides).get('exploration', 0.0):.0%}"


def noisy(run: Run) -> str:
    """The label of a run with flipped labels."""
    return f"{run.system}{', every label trusted' if run.overrides else ''}, {run.flipped:.0%}"


def turned(run: Run) -> str:
    """The label of a run whose taste changes."""
    return f"{taste(run.taste)} → {taste(run.later_taste)}{', not looked for' if run.overrides else ''}"


if __name__ == "__main__":
    command(figures)
