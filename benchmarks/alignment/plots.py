"""Curves with a band of one standard deviation, on the axes of the paper's figures."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from benchmarks.alignment.aggregate import Curve

MEASURES = {"success": "success rate", "coverage": "coverage", "frechet": "Fréchet distance",
            "mean_grade": "mean grade", "jpeg_bytes": "bytes as JPEG"}  # fmt: skip

PALETTE = [plt.get_cmap("tab10")(index) for index in range(10)]
MORE = [plt.get_cmap("tab20")(index) for index in range(20)]
"""The colours of lines in a panel: ten, or twenty where there are more lines."""


def draw_curves(
    path: Path,
    title: str,
    panels: Mapping[str, Mapping[str, Curve]],
    axis: str = "interaction step",
    goal: float | None = None,
) -> list[Path]:
    """One panel per measure, one line per label, named beside the panels; the same numbers beside it as CSV."""
    figure, axes = plt.subplots(1, len(panels), figsize=(5.4 * len(panels), 3.8), squeeze=False)
    many = max(len(lines) for lines in panels.values()) > len(PALETTE)
    for where, (measure, lines) in zip(axes[0], panels.items(), strict=True):
        where.set_prop_cycle(color=MORE if many else PALETTE)
        for label, curve in lines.items():
            (line,) = where.plot(curve.steps, curve.mean, marker="o", markersize=3, label=f"{label} (n={curve.runs})")
            low = [m - d for m, d in zip(curve.mean, curve.deviation, strict=True)]
            high = [m + d for m, d in zip(curve.mean, curve.deviation, strict=True)]
            where.fill_between(curve.steps, low, high, alpha=0.15, color=line.get_color(), linewidth=0)
        where.set_xlabel(axis)
        where.set_ylabel(MEASURES[measure])
        if measure in ("success", "coverage"):
            where.set_ylim(0, 1.02)
            if goal is not None and measure == "success":
                where.axhline(goal, color="grey", linewidth=0.8, linestyle=":")
        where.grid(alpha=0.25)
    axes[0][-1].legend(fontsize=7, loc="center left", bbox_to_anchor=(1.02, 0.5))
    figure.suptitle(title, fontsize=11)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(figure)
    return [path, _write_csv(path.with_suffix(".csv"), panels, axis)]


def _write_csv(path: Path, panels: Mapping[str, Mapping[str, Curve]], axis: str) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["measure", "line", axis, "mean", "standard deviation", "runs"])
        for measure, lines in panels.items():
            for label, curve in lines.items():
                for step, mean, deviation in zip(curve.steps, curve.mean, curve.deviation, strict=True):
                    writer.writerow([measure, label, step, f"{mean:.4f}", f"{deviation:.4f}", curve.runs])
    return path
