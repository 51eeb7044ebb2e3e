"""Figures behind the choice of settings: learning rates of the rivals and the reference, update size, LoRA layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from benchmarks.alignment.aggregate import Loaded, grouped
from benchmarks.alignment.figures.drawing import Figure, command, panels, rate, variant


def figures(loaded: Mapping[str, Loaded]) -> Iterator[Figure]:
    """One figure per sweep that has runs."""
    for name, title in (
        ("tuning", "The rivals' own settings on {5, 7, 9}"),
        ("update-size", "What the cost of an update buys"),
        ("lora", "Where LoRA sits, and what of it learns"),
        ("both-learn", "A that learns too, on every taste"),
    ):
        if runs := loaded[name]:
            named = name == "tuning"
            lines = grouped(runs, (lambda run: f"{run.system}, {variant(run)}") if named else variant)
            yield Figure(name, title, panels(lines))
    if sweep := {run: records for run, records in loaded["reference"].items() if run.rounds == 10}:
        lines = grouped(sweep, rate)
        yield Figure("reference_sweep", "The reference recipe on {5, 7, 9}", panels(lines), experiments=("reference",))


if __name__ == "__main__":
    command(figures)
