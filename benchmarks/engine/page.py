"""docs/results/engine.md from the figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


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
ON_A_GPU = (
    ("16 users in one batch ÷ peft, one user at a time, switching", "10"),
    ("16 users' updates together ÷ one after another", "6"),
    ("every other row", "as above"),
)
NOTES: dict[str, str] = {
    "mixed": "Whole trajectories of 12 steps (dpmpp_2m), K = 400: seven of twelve steps run with adapters.",
    "peft": "One denoising step, one row a user; peft's adapters have the same rank and layers as ours.",
    "updates": "Default updates of ten labels each, in groups of so many at once, in the trainer's default precision.\n"
    "On a CPU the 32 rows of one user's step already keep every core at its products: to go together gains little.",
    "precisions": "One batch of 32 users, by type of the products (`generator.precision`) and layout\n"
    "(`generator.channels_last`).",
    "rotation": "Through adapters, slots (64), host memory (2,000 adapters) and a revision store on disk.",
    "batching": "Poisson arrivals of 1 to 8 items with 6 to 25 steps. Static: whole batches of at most 64 rows\n"
    "that run until the longest of them is done. Where a step takes longer the more rows it has, as on a\n"
    "CPU, what lets the short pass costs the long; `smaller half` are the generations of at most the median\n"
    "count × steps.",
    "compiled": "Speed with torch.compile ÷ without: one denoising step of 32 rows of the base, each block compiled\n"
    "for that number of rows alone. It is not offered where it does not pay.",
    "whole": "The same generations from as many concurrent callers, in turns; the base serves in both.",
    "freshness": "A user rates ten shown items, waits for a newer revision and asks again: twenty rounds of one user,\n"
    "one round each of several. It is computation throughout and follows the machine: on 2026-11-24, on an AMD\n"
    "EPYC and with the recipe of that day, eight rounds had a p50 of 3.28 s and a p95 of 3.63 s; on the machine\n"
    "below, on 2026-11-26, eight had 3.84 s and 5.11 s, and the twenty before these 4.69 s and 5.70 s.",
    "ingestion": "The echo is the same service and messages in a grpc.aio server that acknowledges and does nothing.",
}


def page(found: Mapping[str, Any], plots: Mapping[str, str]) -> str:
    """The goals with their figures, then every figure of every part."""
    parts = (line for name in found for line in _part(name, found[name], plots.get(name)))
    return "\n".join([*_goals(found), *parts]).rstrip() + "\n"


def _goals(found: Mapping[str, Any]) -> Iterator[str]:
    yield "# The engine, measured\n"
    yield (
        "Written by `papa bench engine`, `papa bench serving` and `papa bench feedback`. A ratio is of speeds within\n"
        "one run whose alternatives took turns: the median over the turns, with the quartiles in brackets. What each\n"
        "turn took is in [engine/](engine), a file a part.\n"
    )
    yield "| goal | bound | figure | met |\n| --- | --- | --- | --- |"
    for goal in GOALS:
        figure = goal.figure(found)
        bound = "–" if goal.bound is None else f"{'<' if goal.below else '≥'} {goal.bound:g}"
        if figure is None:
            yield f"| {goal.text} | {bound} | not measured | – |"
        elif goal.bound is None:
            yield f"| {goal.text} | {bound} | {_number(figure)} | – |"
        else:
            yield f"| {goal.text} | {bound} | {_number(figure)} | {'yes' if goal.met(figure) else '**no**'} |"
    for text, bound in ON_A_GPU:
        yield f"| on a GPU: {text} | ≥ {bound} | not measured | – |"
    yield ""


def _part(name: str, figures: Mapping[str, Any], plot: str | None) -> Iterator[str]:
    yield f"## {name}\n"
    if name in NOTES:
        yield f"{NOTES[name]}\n"
    yield (
        f"`{figures['command']}`, {figures['date']}, {figures['machine']}, {figures['threads']} threads, load average "
        f"{figures['load']:.1f} at the end.\n"
    )
    yield "| | figure |\n| --- | --- |"
    for alternative, (middle, low, high) in figures.get("ratios", {}).items():
        yield f"| {alternative} | {_number(middle)} ({_number(low)}–{_number(high)}) |"
    for what, figure in figures.get("figures", {}).items():
        yield f"| {what} | {_number(figure)} |"
    yield ""
    if plot:
        yield f"![{name}]({plot})\n"


def _number(figure: float) -> str:
    return f"{figure:,.0f}" if figure >= 1000 else f"{figure:.3g}" if figure >= 10 else f"{figure:.2f}"
