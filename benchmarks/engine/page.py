"""docs/results/engine.md from the figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.sections import sections


@dataclass(frozen=True)
class Goal:
    """A row of the table: where its figure lies, and from which side it must reach `bound`; None is information."""

    part: str
    name: str
    text: str
    bound: float | None = None
    below: bool = False

    def figure(self, found: Mapping[str, Any]) -> float | None:
        """None when it was not measured."""
        figures = found.get(self.part, {})
        ratio = figures.get("ratios", {}).get(self.name)
        figure = ratio[0] if ratio else figures.get("figures", {}).get(self.name)
        return None if figure is None else float(figure)

    def met(self, figure: float) -> bool:
        """Whether the figure is on the right side."""
        assert self.bound is not None
        return figure < self.bound if self.below else figure >= self.bound


GOALS = (
    Goal("mixed", "32 users", "32 users in one batch ÷ base without adapters", 0.95),
    Goal("peft", "peft, switching", "16 users in one batch ÷ peft, one user at a time, switching", 4.0),
    Goal("peft", "peft, adapter_names", "16 users in one batch ÷ peft's mixed batch by adapter_names"),
    Goal("rotation", "100 users", "throughput, 100 users in rotation ÷ 5", 0.95),
    Goal("rotation", "2000 users", "throughput, 2,000 users in rotation ÷ 5", 0.95),
    Goal("rotation", "20000 users", "throughput, 20,000 users in rotation ÷ 5"),
    Goal("rotation", "cold adapter, p95, ms", "cold adapter, from the store to host memory, p95, ms"),
    Goal("batching", "p50, static ÷ continuous", "p50 under the same Poisson load, static ÷ continuous"),
    Goal("batching", "p95, static ÷ continuous", "p95 under the same Poisson load, static ÷ continuous"),
    Goal(
        "batching", "p95 of the smaller half, static ÷ continuous", "the same, p95 of the smaller half of generations"
    ),
    Goal("batching", "throughput at equal p95", "throughput at equal p95, continuous ÷ static"),
    Goal("updates", "16 at once", "16 users' updates together ÷ one after another", 1.5),
    Goal("whole", "whole path", "whole path (client → gateway → Serve → engine) ÷ bare engine", 0.95),
    Goal(
        "freshness", "p95, 1 active, s", "like → revision served, one active user on two cores, p95, s", 5.0, below=True
    ),
    Goal("freshness", "p95, 8 active, s", "like → revision served, 8 active users, p95, s"),
    Goal("freshness", "p95, 32 active, s", "like → revision served, 32 active users, p95, s"),
    Goal("ingestion", "unary", "feedback, one event a call ÷ bare grpc.aio echo", 0.8),
    Goal("ingestion", "streamed", "feedback, one event a message of a stream ÷ bare grpc.aio echo", 0.8),
    Goal("ingestion", "batched", "feedback, 1,000 events a call ÷ bare grpc.aio echo", 0.8),
    Goal("ingestion", "batched events per second and core", "batched events per second and core", 50_000),
)
NOTES = sections(Path(__file__).with_name("notes.md"))


def page(found: Mapping[str, Any], plots: Mapping[str, str]) -> str:
    """The goals with their figures, then every figure of every part."""
    parts = (line for name in found for line in _part(name, found[name], plots.get(name)))
    return "\n".join([*_goals(found), *parts]).rstrip() + "\n"


def goal_rows(goals: Sequence[Goal], found: Mapping[str, Any]) -> Iterator[str]:
    """A table of the goals: bound, figure, and whether it is met."""
    yield "| goal | bound | figure | met |\n| --- | --- | --- | --- |"
    for goal in goals:
        figure = goal.figure(found)
        bound = "–" if goal.bound is None else f"{'<' if goal.below else '≥'} {goal.bound:g}"
        if figure is None:
            yield f"| {goal.text} | {bound} | not measured | – |"
        elif goal.bound is None:
            yield f"| {goal.text} | {bound} | {number(figure)} | – |"
        else:
            yield f"| {goal.text} | {bound} | {number(figure)} | {'yes' if goal.met(figure) else '**no**'} |"


def ratio_rows(ratios: Mapping[str, Sequence[float]]) -> Iterator[str]:
    """A row for each ratio, with its quartiles in brackets."""
    for what, (middle, low, high) in ratios.items():
        yield f"| {what} | {number(middle)} ({number(low)}–{number(high)}) |"


def _goals(found: Mapping[str, Any]) -> Iterator[str]:
    yield "# The engine, measured\n"
    yield (
        "Written by `papa bench engine`, `papa bench serving` and `papa bench feedback`. A ratio is of speeds within\n"
        "one run whose alternatives took turns: the median over the turns, with the quartiles in brackets. What each\n"
        "turn took is in [engine/](engine), a file a part.\n"
    )
    yield from goal_rows(GOALS, found)
    yield "\nWhat one card does is on [a page of its own](gpu.md).\n"


def _part(name: str, figures: Mapping[str, Any], plot: str | None) -> Iterator[str]:
    yield f"## {name}\n"
    if name in NOTES:
        yield f"{NOTES[name]}\n"
    yield (
        f"`{figures['command']}`, {figures['date']}, {figures['machine']}, {figures['threads']} threads, load average "
        f"{figures['load']:.1f} at the end.\n"
    )
    yield "| | figure |\n| --- | --- |"
    yield from ratio_rows(figures.get("ratios", {}))
    for what, figure in figures.get("figures", {}).items():
        yield f"| {what} | {number(figure)} |"
    yield ""
    if plot:
        yield f"![{name}]({plot})\n"


def number(figure: float) -> str:
    """Three digits, or all before the point."""
    return f"{figure:,.0f}" if figure >= 1000 else f"{figure:.3g}" if figure >= 10 else f"{figure:.2f}"
