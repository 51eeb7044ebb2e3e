"""docs/results/engine.md from the figures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

GOALS: dict[tuple[str, str], tuple[str, float]] = {
    ("mixed", "32 users"): ("32 users in one batch ÷ base without adapters", 0.95),
    ("peft", "peft, switching"): ("÷ peft, one user at a time", 4.0),
    ("updates", "16 at once"): ("16 users' updates together ÷ one after another", 1.5),
}
NOT_MEASURED = (
    "users in rotation (5, 100, 2,000, 20,000) and cold adapters",
    "continuous against static batching under a Poisson load",
    "the whole path ÷ the bare engine",
    "like → revision with 1, 8, 32 active users",
    "feedback ingestion ÷ a bare grpc.aio echo",
    "every row on a GPU",
)


def page(found: dict[str, Any]) -> str:
    """The goals with their figures, then every ratio with its quartiles."""
    return "\n".join([*_goals(found), *(line for name in found for line in _part(name, found[name]))])


def _goals(found: dict[str, Any]) -> Iterator[str]:
    yield "# The engine, measured\n"
    yield (
        "Written by `papa bench engine`. Every figure is a ratio of speeds within one run whose alternatives took\n"
        "turns: the median over the turns, with the quartiles in brackets. Seconds of every turn are in\n"
        "[engine.json](engine.json).\n"
    )
    yield "| goal | at least | figure | met |\n| --- | --- | --- | --- |"
    for (part, name), (goal, least) in GOALS.items():
        ratio = found.get(part, {}).get("ratios", {}).get(name)
        if ratio is None:
            yield f"| {goal} | {least} | not measured | – |"
        else:
            yield f"| {goal} | {least} | {ratio[0]:.2f} | {'yes' if ratio[0] >= least else '**no**'} |"
    for goal in NOT_MEASURED:
        yield f"| {goal} | | not measured | – |"
    yield ""


def _part(name: str, figures: dict[str, Any]) -> Iterator[str]:
    yield f"## {name}\n"
    yield (
        f"`{figures['command']}`, {figures['date']}, {figures['machine']}, {figures['threads']} threads, load average "
        f"{figures['load']:.1f} at the end.\n"
    )
    yield "| alternative | ratio |\n| --- | --- |"
    for alternative, (middle, low, high) in figures["ratios"].items():
        yield f"| {alternative} | {middle:.2f} ({low:.2f}–{high:.2f}) |"
    yield ""
