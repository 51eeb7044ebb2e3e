"""The demo's figures: as a table for the terminal and as JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich import box
from rich.table import Table

from papa_serving.demo.evaluation import goal
from papa_serving.demo.loop import DemoPlan, DemoResult
from papa_serving.demo.pictures import save_contact_sheet, save_curve
from papa_serving.demo.shopper import Shopper

CLASS_NAMES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")


def class_names(backbone: str) -> tuple[str, ...]:
    """The names of the ten classes of a shipped backbone's oracle; digits are their own names."""
    return CLASS_NAMES if backbone == "fashion_mnist" else tuple(str(each) for each in range(len(CLASS_NAMES)))


def adapted(result: DemoResult) -> bool:
    """Whether the loop has learnt the taste; see evaluation.goal."""
    return result.after.success >= goal(result.before.success)


def named(taste: frozenset[int]) -> str:
    """The names of these classes, as text."""
    return ", ".join(f"{CLASS_NAMES[each]} ({each})" for each in sorted(taste))


def table(result: DemoResult, shopper: Shopper) -> Table:
    """The table that compares before and after."""
    rows = Table(
        "", "before", "after", title=f"hidden taste: {named(shopper.taste)}", title_justify="left", box=box.SIMPLE_HEAD
    )
    before, after = result.before, result.after
    rows.add_row("success on fresh samples", f"{before.success:.2f}", f"[bold]{after.success:.2f}[/bold]")
    rows.add_row("coverage of the taste", f"{before.coverage:.2f}", f"{after.coverage:.2f}")
    rows.add_row("ratings learnt", "0", str(result.state.likes + result.state.dislikes - result.state.dead_letters))
    revision = result.state.current_revision
    rows.add_row("serving", "backbone", revision.name if revision else "backbone")
    learning = sorted(each.learning for each in result.rounds)
    rows.add_row("feedback to new revision, median", "", f"{learning[len(learning) // 2]:.1f} s")
    return rows


def save(
    results: Sequence[DemoResult], shoppers: Sequence[Shopper], plan: DemoPlan, seconds: float, folder: Path
) -> list[Path]:
    """Writes contact sheet, curve and figures, and returns their paths. The curve is the first shopper's."""
    folder.mkdir(parents=True, exist_ok=True)
    sheet, curve, figures = (folder / name for name in ("contact_sheet.png", "curve.png", "figures.json"))
    tastes = [named(shopper.taste) for shopper in shoppers]
    save_contact_sheet(list(zip(tastes, results, strict=True)), sheet)
    save_curve(results[0], curve)
    first, *others = map(_figures, results, shoppers)
    document = {"plan": asdict(plan), "seconds": seconds, **first, "others": others}
    figures.write_text(json.dumps(document, indent=2) + "\n")
    return [sheet, curve, figures]


def _figures(result: DemoResult, shopper: Shopper) -> dict[str, object]:
    return {
        "taste": sorted(shopper.taste),
        "base_success": result.before.success,
        "final_success": result.after.success,
        "goal": goal(result.before.success),
        "adapted": adapted(result),
        "base_coverage": result.before.coverage,
        "final_coverage": result.after.coverage,
        "dead_letters": result.state.dead_letters,
        "rounds": [asdict(each) for each in result.rounds],
    }
