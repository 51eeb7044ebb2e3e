"""Shared by the scripts of this folder: a figure of curves, and the command that draws it from the records."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.alignment.aggregate import Curve, Loaded, Records, curve
from benchmarks.alignment.archive import RAW, RESULTS, completed
from benchmarks.alignment.grid import EXPERIMENTS
from benchmarks.alignment.plots import draw_curves
from benchmarks.alignment.runner import load
from benchmarks.alignment.runs import Run


@dataclass(frozen=True)
class Figure:
    """Curves: one panel per measure, one line per label. `name` is the file's, without its ending."""

    name: str
    title: str
    panels: Mapping[str, Mapping[str, Curve]]
    axis: str = "interaction step"
    compares: bool = True
    """Means nothing with a single line."""
    experiments: tuple[str, ...] = ()
    """The experiments whose runs it shows; empty: the experiment of its own name."""
    dataset: str = ""
    """Shows only runs of this data set; empty: of all."""

    @property
    def worth_drawing(self) -> bool:
        """Whether the runs that it wants are there."""
        return not self.compares or any(len(lines) > 1 for lines in self.panels.values())

    def draw(self, results: Path) -> list[Path]:
        """The picture and its numbers."""
        return draw_curves(results / f"{self.name}.png", self.title, self.panels, self.axis, goal=0.9)


Figures = Callable[[Mapping[str, Loaded]], Iterator[Figure]]


def everything(raw: Path) -> dict[str, Loaded]:
    """The complete runs of every experiment."""
    return {name: load(raw, make()) for name, make in EXPERIMENTS.items()}


def panels(
    lines: Mapping[str, list[Records]], axis: str = "step", measures: Iterable[str] = ("success", "coverage")
) -> dict[str, dict[str, Curve]]:
    """Each measure's curves by label."""
    return {m: {label: curve(runs, m, axis) for label, runs in lines.items()} for m in measures}


def taste(classes: tuple[int, ...]) -> str:
    """Formats the classes of a taste as a set."""
    return "{" + ", ".join(map(str, classes)) + "}"


def variant(run: Run) -> str:
    """The overrides of a run as text, or "default"."""
    return ", ".join(f"{name} = {value}" for name, value in run.overrides) or "default"


def rate(run: Run) -> str:
    """The reference recipe's kind and learning rate."""
    return f"{run.system.removeprefix('reference-').upper()}, lr {dict(run.overrides)['learning_rate']:g}"


def command(figures: Figures) -> None:
    """The main of a script."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--raw", type=Path, default=RAW, help="folder of the runs' records")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of pictures and tables")
    options = parser.parse_args()
    for figure in figures(everything(completed(options.raw))):
        if figure.worth_drawing:
            print(*figure.draw(options.out), sep="\n")
