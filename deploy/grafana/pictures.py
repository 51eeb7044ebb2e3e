"""Draws each dashboard from a running Prometheus into one PNG, for those who read the docs without a Grafana.

python deploy/grafana/pictures.py 127.0.0.1:9090 docs/images/dashboards [--minutes 5]
"""

from __future__ import annotations

import argparse
import itertools
import re
import time
from pathlib import Path

import matplotlib as mpl
from asking import Series, ask
from board import Board, Form, Panel, Query
from generate import BOARDS
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

mpl.use("Agg")
COLUMNS = 3
POINTS = 120
UNITS = {
    "s": "seconds",
    "percentunit": "share",
    "cps": "per second",
    "reqps": "calls per second",
    "short": "",
    "bytes": "bytes",
}


def draw(board: Board, address: str, minutes: float, path: Path) -> None:
    """Those panels that have data here; the others are Grafana's business."""
    end = time.time()
    begin, step = end - 60 * minutes, 60 * minutes / POINTS
    answers = {
        panel.title: [(query, ask(address, query.expression, begin, end, step, "30s")) for query in panel.queries]
        for panel in board.panels
        if panel.source == "papa"
    }
    shown = [panel for panel in board.panels if any(series for _, series in answers.get(panel.title, []))]
    rows = -(-len(shown) // COLUMNS)
    figure, axes = plt.subplots(rows, COLUMNS, figsize=(18, 3.4 * rows), layout="constrained", squeeze=False)
    for panel, place in zip(shown, axes.flat, strict=False):
        _draw_panel(panel, answers[panel.title], place, begin)
    for place in axes.flat[len(shown) :]:
        place.set_visible(False)
    figure.suptitle(f"{board.title}: {board.description}", fontsize=14)
    figure.savefig(path, dpi=80)
    plt.close(figure)


def _draw_panel(panel: Panel, answers: list[tuple[Query, list[Series]]], place: Axes, begin: float) -> None:
    place.set_title(panel.title, fontsize=11)
    place.set_ylabel(UNITS.get(panel.unit, panel.unit), fontsize=9)
    place.set_xlabel("minutes", fontsize=8)
    place.grid(alpha=0.3)
    if panel.form is Form.HEAT:
        _draw_buckets(answers[0][1], place, begin)
        return
    lines = [(_legend(query, labels), points) for query, series in answers for labels, points in series]
    for name, points in lines[:12]:
        place.plot([(t - begin) / 60 for t, _ in points], [value for _, value in points], label=name)
    place.set_ylim(bottom=0, top=panel.at_most)
    if len(lines) > 1 or lines[0][0]:
        place.legend(fontsize=7, loc="upper left")


def _draw_buckets(series: list[Series], place: Axes, begin: float) -> None:
    """Cumulative buckets become counts of their own, drawn as bands."""
    ordered = sorted(series, key=lambda each: float(each[0]["le"]))
    times = sorted({t for _, points in ordered for t, _ in points})
    table = [[dict(points).get(t, 0.0) for t in times] for _, points in ordered]
    own = [
        [max(0.0, high - low) for high, low in zip(row, below, strict=True)] for below, row in itertools.pairwise(table)
    ]
    place.pcolormesh(
        [(t - begin) / 60 for t in times], range(len(table)), [table[0], *own], cmap="magma_r", shading="nearest"
    )
    place.set_yticks(range(len(table)), [labels["le"] for labels, _ in ordered], fontsize=7)


def _legend(query: Query, labels: dict[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), query.legend)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address", help="host:port of Prometheus")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=5.0)
    chosen = parser.parse_args()
    chosen.folder.mkdir(parents=True, exist_ok=True)
    for each in BOARDS:
        draw(each, chosen.address, chosen.minutes, chosen.folder / f"{each.name}.png")
        print(f"wrote {chosen.folder / each.name}.png")
