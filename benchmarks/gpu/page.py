"""docs/results/gpu.md from the records of a run; what has no record says so."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.engine.page import Goal, goal_rows, number, ratio_rows

SHARES = {
    "correctness": 45,
    "shipped": 45,
    "sd15": 75,
    "sdxl": 95,
    "updates": 45,
    "updates-sd15": 45,
    "updates-sdxl": 40,
    "compilation": 45,
    "rotation": 20,
    "batching": 25,
}
"""The parts of a run, and what each takes of eight minutes, in seconds."""

Record = Mapping[str, Any]


GOALS = (
    Goal("shipped", "64 users ÷ base", "shipped backbone, 64 users in one batch ÷ base", 0.95),
    Goal("sd15", "16 users ÷ base", "SD 1.5, 512², 16 users in one batch ÷ base", 0.95),
    Goal("sd15", "64 users ÷ base", "SD 1.5, 512², 64 users in one batch ÷ base", 0.95),
    Goal("sdxl", "16 users ÷ base", "SDXL, 1024², 16 users in one batch ÷ base", 0.95),
    Goal("shipped", "16 users ÷ peft, switching", "shipped, 16 users ÷ peft, one at a time", 10),
    Goal("sd15", "16 users ÷ peft, switching", "SD 1.5, 16 users ÷ peft, one at a time", 10),
    Goal("updates", "16 at once", "16 users' updates together ÷ one after another", 6),
    Goal("updates", "like → served, p95, s", "like → served, one user, p95, s", 1.0, below=True),
    Goal("rotation", "2000 users ÷ 5 users", "2,000 users in rotation ÷ 5", 0.95),
)


def write(out: Path) -> None:
    """Writes gpu.md from the records in gpu/."""
    out.mkdir(parents=True, exist_ok=True)
    records = {name: _read(out / "gpu" / f"{name}.json") for name in SHARES}
    (out / "gpu.md").write_text(page({name: record for name, record in records.items() if record}))


def page(records: Mapping[str, Record]) -> str:
    """The goals with their figures, then every figure of every part."""
    parts = [line for name in SHARES for line in _part(name, records.get(name))]
    return "\n".join([*_head(records), *parts]).rstrip() + "\n"


def _read(path: Path) -> Record:
    return json.loads(path.read_text()) if path.exists() else {}


def _head(records: Mapping[str, Record]) -> Iterator[str]:
    yield "# On a GPU\n"
    yield (
        "Written by `make gpu`. A ratio is of speeds within one run whose alternatives took turns: the median over\n"
        "the turns, with the quartiles in brackets. Stable Diffusion's networks have their published sizes and\n"
        "random weights; speed and memory do not depend on what the weights are.\n"
    )
    if any(record["tiny"] for record in records.values()):
        yield "**Tiny sizes: these figures show that every part runs, and nothing else.**\n"
    if not records:
        yield "No card has been at hand so far: nothing below is measured.\n"
    yield from goal_rows(GOALS, records)
    yield ""


def _part(name: str, record: Record | None) -> Iterator[str]:
    yield f"## {name}\n"
    if record is None:
        yield "Not measured.\n"
        return
    yield (
        f"`{record['command']}`, {record['date']}, {record['machine']}, torch {record['torch']}, "
        f"Python {record['python']}.\n"
    )
    yield "| | figure |\n| --- | --- |"
    for what, (found, bound, fine) in record.get("checks", {}).items():
        yield f"| {what}, difference | {found:.2g}, at most {bound:g}: {'yes' if fine else '**no**'} |"
    yield from ratio_rows(record.get("ratios", {}))
    for what, found in record.get("figures", {}).items():
        yield f"| {what} | {_said(found)} |"
    for users, ways in record.get("steps", {}).items():
        yield f"| a step, {users} | {_step(ways)} |"
    yield ""


def _step(ways: Any) -> str:
    """p50 and p95 of each way in ms, and what else there is."""
    if isinstance(ways, str):
        return ways
    return "; ".join(
        f"{way} {1e3 * found['p50']:.1f} / {1e3 * found['p95']:.1f} ms"
        if isinstance(found, dict)
        else f"{way} {number(found)}"
        for way, found in ways.items()
    )


def _said(found: Any) -> str:
    return number(found) if isinstance(found, int | float) else str(found)
