"""The contact sheet and the curve that the demo saves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from papa_serving.client import Item
from papa_serving.demo.evaluation import Evaluation, goal
from papa_serving.demo.loop import DemoResult

COLUMNS, ROWS = 8, 5
_CELL, _FRAME, _GAP, _HEADER = 64, 4, 6, 28
_LIKED, _PAPER, _INK = (22, 140, 70), (255, 255, 255), (30, 30, 30)


def save_contact_sheet(results: Sequence[tuple[str, DemoResult]], path: Path) -> None:
    """Saves, for each named taste, the same seeds before (left) and after (right). Liked items are framed."""
    bands = [_band(taste, result) for taste, result in results]
    gap = 4 * _GAP
    page = Image.new("RGB", (bands[0].width, sum(band.height + gap for band in bands) - gap), _PAPER)
    top = 0
    for band in bands:
        page.paste(band, (0, top))
        top += band.height + gap
    page.save(path)


def _band(taste: str, result: DemoResult) -> Image.Image:
    ratings = sum(each.shown for each in result.rounds)
    sheets = [
        _sheet(result.before, f"before: {result.before.success:.0%} to the shopper's taste"),
        _sheet(result.after, f"after {ratings} ratings: {result.after.success:.0%}"),
    ]
    width = sum(sheet.width for sheet in sheets) + 4 * _GAP
    band = Image.new("RGB", (width, _HEADER + sheets[0].height), _PAPER)
    ImageDraw.Draw(band).text((_GAP, _GAP), f"hidden taste: {taste}", fill=_INK, font_size=18)
    band.paste(sheets[0], (0, _HEADER))
    band.paste(sheets[1], (sheets[0].width + 4 * _GAP, _HEADER))
    return band


def _sheet(evaluation: Evaluation, title: str) -> Image.Image:
    step = _CELL + 2 * _FRAME + _GAP
    sheet = Image.new("RGB", (COLUMNS * step + _GAP, ROWS * step + _GAP + _HEADER), _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP, _GAP), title, fill=_INK, font_size=16)
    for index, (item, liked) in enumerate(zip(evaluation.items, evaluation.liked, strict=True)):
        row, column = divmod(index, COLUMNS)
        if row >= ROWS:
            break
        left, top = _GAP + column * step, _HEADER + _GAP + row * step
        if liked:
            draw.rectangle((left, top, left + _CELL + 2 * _FRAME - 1, top + _CELL + 2 * _FRAME - 1), fill=_LIKED)
        sheet.paste(_enlarged(item), (left + _FRAME, top + _FRAME))
    return sheet


def _enlarged(item: Item) -> Image.Image:
    return item.pil().convert("RGB").resize((_CELL, _CELL), Image.Resampling.BICUBIC)


def save_curve(result: DemoResult, path: Path) -> None:
    """Saves success over ratings: shown items per round, measurements on fresh samples, the base and the goal."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="ratings given", ylabel="share to the shopper's taste", ylim=(0, 1))
    ratings, total = [], 0
    for each in result.rounds:
        total += each.shown
        ratings.append(total)
    shown = [each.liked / each.shown for each in result.rounds]
    width = 0.6 * result.rounds[0].shown
    axes.bar(ratings, shown, width=width, color="#c9d9ee", label="items shown in a round")
    glances = [(at, each.success) for at, each in zip(ratings, result.rounds, strict=True) if each.success is not None]
    points = [(0, result.before.success), *glances, (total, result.after.success)]
    axes.plot(*zip(*points, strict=True), marker="o", color="#1f4e9c", label="fresh samples")
    axes.axhline(result.before.success, color="grey", linestyle=":", label="backbone")
    axes.axhline(goal(result.before.success), color="#168c46", linestyle="--", label="goal")
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=150)
