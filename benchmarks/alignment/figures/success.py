"""Figures 5 and 23: success over interaction steps, mean and deviation over tastes and seeds, by system or taste."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from benchmarks.alignment.aggregate import Loaded, Records, grouped
from benchmarks.alignment.figures.drawing import Figure, command, panels, taste
from benchmarks.alignment.grid import FRAMED, TUNED
from benchmarks.alignment.runs import Run

DATASETS = (("fashion_mnist", "Fashion-MNIST"), ("mnist", "MNIST"), ("cifar10", "CIFAR-10"),
            (FRAMED, "Fashion-MNIST, a U-Net of the paper's size"))  # fmt: skip

COMPARED = ("base", "main", "rivals", "reference", "published")
SHOWN = {"cifar10": ("cifar10",), FRAMED: ("paper-size",)}
"""The experiments of the data sets that have their own."""


def figures(loaded: Mapping[str, Loaded]) -> Iterator[Figure]:
    """Per data set: the systems, and ours by taste."""
    for dataset, label in DATASETS:
        systems = {name: of(dataset, runs) for name, runs in by_system(loaded).items() if name != "base"}
        if any(systems.values()):
            lines = {name: list(runs.values()) for name, runs in systems.items() if runs}
            yield Figure(
                f"success_{dataset}",
                f"{label}: success over interaction steps",
                panels(lines),
                compares=False,
                experiments=SHOWN.get(dataset, COMPARED),
                dataset=dataset,
            )
        if ours := of(dataset, by_system(loaded).get("ours", {})):
            lines = grouped(ours, lambda run: taste(run.taste))
            yield Figure(
                f"tastes_{dataset}",
                f"{label}: ours, by taste",
                panels(lines),
                compares=False,
                experiments=SHOWN.get(dataset, ("main",)),
                dataset=dataset,
            )


def of(dataset: str, runs: Loaded) -> Loaded:
    """The runs on a data set."""
    return {run: records for run, records in runs.items() if run.dataset == dataset}


def by_system(loaded: Mapping[str, Loaded]) -> dict[str, Loaded]:
    """Each system on equal terms: the reference at the best rate of its sweep and at the published one (both thinned),
    and as published in full."""
    named: dict[str, dict[Run, Records]] = {"ours": dict(loaded["main"])}
    for run, records in loaded["cifar10"].items():
        named.setdefault(run.system, {})[run] = records
    for run, records in loaded["rivals"].items():
        named.setdefault(run.system, {})[run] = records
    for run, records in loaded["reference"].items():
        rate = dict(run.overrides)["learning_rate"]
        if rate in (TUNED, 1e-5):
            named.setdefault(f"{run.system}, lr {rate:g}", {})[run] = records
    for run, records in (*loaded["published"].items(), *loaded["paper-size"].items()):
        name = "base" if run.system == "base" else f"{run.system}, as published in full"
        named.setdefault(name, {})[run] = records
    named.setdefault("base", {}).update(loaded["base"])
    return {name: runs for name, runs in named.items() if runs}


if __name__ == "__main__":
    command(figures)
