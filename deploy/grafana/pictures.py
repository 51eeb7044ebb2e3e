"""Draws each dashboard from a running Prometheus into one PNG, for those who read the docs without a Grafana.

python deploy/grafana/pictures.py 127.0.0.1:9090 docs/images/dashboards [--minutes 5]

The release is the one that deploy/prometheus names, unless --namespace and --release say another.
"""

from __future__ import annotations

import argparse
import itertools
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from asking import Series, ask
from board import WIDTH, Board, Form, Panel, Query
from generate import BOARDS
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import FuncFormatter, MaxNLocator

mpl.use("Agg")
POINTS = 150
LEGEND_COLUMNS = 4
INK, FAINT, GROUND = "#24292f", "#8c959f", "#f6f8fa"
SERIES = ["#3274d9", "#e0752d", "#56a64b", "#b877d9", "#e02f44", "#8f8f2b", "#1f9e9e", "#9a6a4f"]
STYLE = {
    "font.size": 9, "text.color": INK, "axes.labelcolor": FAINT, "xtick.color": FAINT, "ytick.color": FAINT,
    "axes.edgecolor": "#d0d7de", "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
    "grid.color": "#eaeef2", "axes.axisbelow": True, "axes.prop_cycle": mpl.cycler(color=SERIES),
    "figure.facecolor": GROUND, "axes.facecolor": "white",
}  # fmt: skip

Answers = list[tuple[Query, list[Series]]]


@dataclass(frozen=True)
class Source:
    """A Prometheus (host:port), and the release whose series are drawn."""

    address: str
    namespace: str = "local"
    release: str = "papa"

    def ask(self, query: Query, begin: float, end: float, step: float) -> list[Series]:
        """Runs a panel's query between two Unix times."""
        variables = {"__rate_interval": "30s", "namespace": self.namespace, "release": self.release}
        return ask(self.address, query.expression, begin, end, step, variables)


def draw(board: Board, source: Source, minutes: float, path: Path) -> None:
    """Row by row as Grafana places them; panels without data here say so."""
    end = time.time()
    begin, step = end - 60 * minutes, 60 * minutes / POINTS
    rows = {title: [panel for panel in panels if panel.source == "papa"] for title, panels in board.rows.items()}
    rows = {title: panels for title, panels in rows.items() if panels}
    with plt.rc_context(STYLE):  # type: ignore[arg-type]
        lines = {title: _wrapped(panels) for title, panels in rows.items()}
        heights = [0.4 + sum(map(_height, lines[title])) for title in rows]
        figure = plt.figure(figsize=(15, sum(heights) + 0.6), layout="constrained")
        figure.suptitle(board.title, fontsize=15, weight="bold", x=0.01, ha="left")
        figure.get_layout_engine().set(w_pad=0.12, h_pad=0.06, wspace=0.02, hspace=0.02)  # type: ignore[union-attr]
        parts = figure.subfigures(len(rows), 1, height_ratios=heights, squeeze=False)[:, 0]
        for title, part in zip(rows, parts, strict=True):
            part.suptitle(title, fontsize=11, x=0.01, ha="left", color=FAINT)
            _draw_row(part, lines[title], source, (begin, end, step))
        figure.savefig(path, dpi=80)
        plt.close(figure)


def _wrapped(panels: Sequence[Panel]) -> list[list[Panel]]:
    """Arranges panels in lines of Grafana's width."""
    lines: list[list[Panel]] = [[]]
    for panel in panels:
        if sum(each.width for each in lines[-1]) + panel.width > WIDTH:
            lines.append([])
        lines[-1].append(panel)
    return lines


def _height(line: Sequence[Panel]) -> float:
    """Inches."""
    return 1.4 if all(panel.form is Form.NUMBER for panel in line) else 2.4


def _draw_row(
    part: Figure | SubFigure, lines: list[list[Panel]], source: Source, times: tuple[float, float, float]
) -> None:
    grid = part.add_gridspec(len(lines), WIDTH, height_ratios=[_height(line) for line in lines])
    begin, end, step = times
    for number, line in enumerate(lines):
        at = 0
        for panel in line:
            axes = part.add_subplot(grid[number, at : at + panel.width])
            at += panel.width
            answers = [(query, source.ask(query, begin, end, step)) for query in panel.queries]
            axes.set_title(panel.title, fontsize=10, loc="left", weight="bold", pad=18)
            _draw_panel(panel, answers, axes, begin)
            if panel.form is not Form.NUMBER:
                axes.set_xlim(0, (end - begin) / 60)
                axes.set_xlabel("minutes", fontsize=7, labelpad=1)
            axes.tick_params(labelsize=7, length=0)


def _draw_panel(panel: Panel, answers: Answers, axes: Axes, begin: float) -> None:
    lines = [(_legend(query, labels), points) for query, series in answers for labels, points in series]
    if not lines:
        axes.set_xticks([])
        axes.set_yticks([])
        said = "nothing has happened" if panel.eventful else "no data"
        axes.text(0.5, 0.5, said, transform=axes.transAxes, ha="center", va="center", color=FAINT)
    elif panel.form is Form.NUMBER:
        _draw_number(panel, lines[0][1], axes)
    elif panel.form is Form.HEAT:
        _draw_buckets(answers[0][1], axes, begin)
    else:
        _draw_lines(panel, lines, axes, begin)


def _draw_number(panel: Panel, points: list[tuple[float, float]], axes: Axes) -> None:
    """The newest value, over how it came to be."""
    values = [value for _, value in points]
    axes.fill_between(range(len(values)), values, color=SERIES[0], alpha=0.15, linewidth=0)
    axes.set_ylim(0, 2.5 * max(*values, 1e-9))
    axes.set_xlim(0, max(1, len(values) - 1))
    axes.set_xticks([])
    axes.set_yticks([])
    text = _formatted(panel.unit, values[-1])
    axes.text(0.5, 0.6, text, transform=axes.transAxes, ha="center", va="center", fontsize=26, color=SERIES[0])


def _draw_lines(panel: Panel, lines: list[tuple[str, list[tuple[float, float]]]], axes: Axes, begin: float) -> None:
    lines = lines[: len(SERIES)]
    if panel.form is Form.STACK:
        times = sorted({t for _, points in lines for t, _ in points})
        table = [[dict(points).get(t, 0.0) for t in times] for _, points in lines]
        names = [name or panel.title for name, _ in lines]
        axes.stackplot([(t - begin) / 60 for t in times], table, labels=names, alpha=0.55)
    else:
        for name, points in lines:
            axes.plot([(t - begin) / 60 for t, _ in points], [value for _, value in points], label=name, linewidth=1.4)
    axes.set_ylim(bottom=0, top=panel.at_most)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _formatted(panel.unit, value)))
    if len(lines) > 1 or lines[0][0]:
        _place_legend(axes, len(lines))


def _place_legend(axes: Axes, lines: int) -> None:
    """Between title and curves, so that it hides none of them."""
    legend = axes.legend(
        fontsize=7, loc="lower left", bbox_to_anchor=(-0.02, 0.99), ncols=LEGEND_COLUMNS, frameon=False,
        borderaxespad=0, handlelength=0.8, columnspacing=1.0, handletextpad=0.4,
    )  # fmt: skip
    legend.set_in_layout(False)  # it may be wider than its panel, and panels of a row are equally wide
    if lines > LEGEND_COLUMNS:
        axes.set_title(axes.get_title(loc="left"), fontsize=10, loc="left", weight="bold", pad=28)


def _draw_buckets(series: list[Series], axes: Axes, begin: float) -> None:
    """Cumulative buckets become counts of their own, drawn as bands between the first and the last that hold any."""
    ordered = sorted(series, key=lambda each: float(each[0]["le"]))
    times = sorted({t for _, points in ordered for t, _ in points})
    table = [[dict(points).get(t, 0.0) for t in times] for _, points in ordered]
    own = [
        table[0],
        *(
            [max(0.0, high - low) for high, low in zip(row, below, strict=True)]
            for below, row in itertools.pairwise(table)
        ),
    ]
    filled = [index for index, row in enumerate(own) if max(row) > 0]
    first, last = max(0, min(filled, default=0) - 1), min(len(own), max(filled, default=0) + 2)
    shown = [[value if value > 0 else float("nan") for value in row] for row in own[first:last]]
    minutes = [(t - begin) / 60 for t in times]
    axes.pcolormesh(minutes, range(len(shown)), shown, cmap="Blues", vmin=0, shading="nearest")
    axes.set_yticks(range(len(shown)), [f"≤ {float(labels['le']):g}" for labels, _ in ordered[first:last]])
    axes.grid(visible=False)


def _formatted(unit: str, value: float) -> str:
    """Formats a value briefly, as Grafana does for that unit."""
    match unit:
        case "percentunit":
            return f"{100 * value:.3g} %"
        case "s":
            return f"{1000 * value:.3g} ms" if 0 < value < 1 else f"{value:.3g} s"
        case "bytes" | "Bps":
            scale = next((power for power in (3, 2, 1) if value >= 1024**power), 0)
            return f"{value / 1024**scale:.3g} {['B', 'KiB', 'MiB', 'GiB'][scale]}" + ("/s" if unit == "Bps" else "")
        case "cps" | "reqps":
            return f"{value:.3g} /s"
    return f"{value:.4g}"


def _legend(query: Query, labels: dict[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), query.legend).strip()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address", help="host:port of Prometheus")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--namespace", default=Source.namespace)
    parser.add_argument("--release", default=Source.release)
    chosen = parser.parse_args()
    chosen.folder.mkdir(parents=True, exist_ok=True)
    for each in BOARDS:
        draw(
            each,
            Source(chosen.address, chosen.namespace, chosen.release),
            chosen.minutes,
            chosen.folder / f"{each.name}.png",
        )
        print(f"wrote {chosen.folder / each.name}.png")
