"""Plots of what was measured, one a part; a part without a plot, or not measured, has none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Figures = Mapping[str, Any]


def draw_all(found: Mapping[str, Figures], folder: Path) -> dict[str, str]:
    """Writes the plots and tells the file of each part's."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    drawn = {}
    for name, draw in PLOTS.items():
        if name not in found:
            continue
        figure, axes = pyplot.subplots(figsize=(7, 3.4), layout="constrained")
        draw(axes, found[name])
        figure.savefig(folder / f"{name}.png", dpi=110, metadata={"Software": None})
        pyplot.close(figure)
        drawn[name] = f"engine/{name}.png"
    return drawn


def _bars(label: str, target: tuple[str, float] | None = None) -> Callable[[Any, Figures], None]:
    """A bar for each ratio with its quartiles, and a line at the goal."""

    def draw(axes: Any, figures: Figures) -> None:
        ratios = figures["ratios"]
        middles = [ratio[0] for ratio in ratios.values()]
        spreads = [
            [ratio[0] - ratio[1] for ratio in ratios.values()],
            [ratio[2] - ratio[0] for ratio in ratios.values()],
        ]
        axes.bar(list(ratios), middles, yerr=[[max(0.0, gap) for gap in side] for side in spreads], capsize=3)
        if target:
            axes.axhline(target[1], color="black", linestyle="--", linewidth=1, label=target[0])
            axes.legend(loc="best")
        axes.set_ylabel(label)
        axes.tick_params(axis="x", labelrotation=20)

    return draw


def _batching(axes: Any, figures: Figures) -> None:
    for kind in ("continuous", "static"):
        points = sorted(figures["curves"][kind], key=lambda point: point["items_per_second"])
        for share, style in (("p50", ":"), ("p95", "-")):
            axes.plot(
                [point["items_per_second"] for point in points],
                [point[share] for point in points],
                style,
                marker="o",
                color={"continuous": "tab:blue", "static": "tab:red"}[kind],
                label=f"{kind}, {share}",
            )
    axes.set_xlabel("items per second")
    axes.set_ylabel("latency of a generation, s")
    axes.legend()


def _freshness(axes: Any, figures: Figures) -> None:
    for users, seconds in figures["seconds"].items():
        ordered = sorted(seconds)
        shares = [(index + 1) / len(ordered) for index in range(len(ordered))]
        axes.step([0, *ordered], [0, *shares], where="post", label=f"{users} active")
    axes.axvline(5, color="black", linestyle="--", linewidth=1, label="goal for one, p95")
    axes.set_xlabel("like → revision served, s")
    axes.set_ylabel("share of updates")
    axes.legend(loc="lower right")


PLOTS: dict[str, Callable[[Any, Figures], None]] = {
    "mixed": _bars("speed ÷ base", ("goal at 32 users", 0.95)),
    "peft": _bars("speed of ours ÷ alternative", ("goal against switching", 4.0)),
    "updates": _bars("speed ÷ one after another", ("goal at 16", 1.5)),
    "precisions": _bars("speed ÷ float32"),
    "compiled": _bars("speed compiled ÷ eager"),
    "rotation": _bars("speed ÷ 5 users", ("goal up to 2,000", 0.95)),
    "ingestion": _bars("speed ÷ bare grpc.aio echo", ("goal", 0.8)),
    "batching": _batching,
    "freshness": _freshness,
}
