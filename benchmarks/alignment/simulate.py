"""One run: show, rate, learn, and now and then measure; a JSON line per interaction step."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from benchmarks.alignment.runs import Run
from benchmarks.alignment.selection import most_informative
from benchmarks.alignment.systems.base import Base, System
from benchmarks.alignment.world import SimulatedUser, World, graded, jpeg_bytes
from papa.alignment import coverage, frechet_distance, success_rate

EVALUATION_SEED = 1_000_000_007
"""Evaluation samples start from the same noise in every run and at every step."""
SHOWN_SEED = 10_000_019
SHEET = 20
"""Evaluation samples that a record carries as pictures, under "sheet" [n, C, H, W]."""
FILTERED = 300
"""Base samples of the taste whose Fréchet distance is the yardstick, as many as other systems' last evaluation has."""


def simulate(run: Run, world: World, system: System) -> Iterator[dict[str, Any]]:
    """The records of a run: one after every interaction step, and step 0 before the first."""
    user, history, busy = SimulatedUser(run, world.oracle), History(), 0.0
    yield {"step": 0, "labels": 0, **_cost(system, 0.0), **_evaluated(run, world, system, user, 0)}
    for step in range(run.rounds):
        started = time.perf_counter()
        shown = _shown(run, system, history, step)
        grades = user.grades(system.denoiser.decode(shown), step)
        history.add(shown, grades)
        system.learn(shown, grades, step)
        busy += time.perf_counter() - started
        record = {"step": step + 1, "labels": (step + 1) * run.labels, **_cost(system, busy)}
        record |= system.figures() | {
            "shown_liked": float((grades > 0).float().mean()),
            "shown_mean_grade": float(grades.mean()),
        }
        yield record | _evaluated(run, world, system, user, step + 1)


class History:
    """All that was shown and how it was graded."""

    def __init__(self) -> None:
        self.shown: list[Tensor] = []
        self.grades: list[Tensor] = []

    def add(self, shown: Tensor, grades: Tensor) -> None:
        self.shown.append(shown)
        self.grades.append(grades)


def shown_seeds(run: Run, step: int, count: int) -> list[int]:
    """The seeds of what is shown in an interaction step, from 0; a step shows at most a thousand items."""
    first = SHOWN_SEED * (run.seed + 1) + 1000 * step
    return list(range(first, first + count))


def _shown(run: Run, system: System, history: History, step: int) -> Tensor:
    drawn = max(run.labels, run.candidates)
    candidates = system.show(shown_seeds(run, step, drawn))
    if not run.candidates or not history.shown:
        return candidates[: run.labels]
    shown, grades = torch.cat(history.shown), torch.cat(history.grades)
    system.cost.plain += drawn
    return candidates[most_informative(system.denoiser, candidates, shown, grades, run.labels)]


def _cost(system: System, seconds: float) -> dict[str, Any]:
    return {"cost": system.cost.total, **asdict(system.cost), "seconds": round(seconds, 3)}


def _evaluated(run: Run, world: World, system: System, user: SimulatedUser, step: int) -> dict[str, Any]:
    if step not in run.evaluated and step != run.rounds:
        return {}
    count = run.final_samples if step == run.rounds else run.samples
    model = system if step else Base(system.denoiser, system.sampling, run.seed)  # which draws once for all runs
    model.prompt = system.prompt
    x0 = model.draw(list(range(EVALUATION_SEED, EVALUATION_SEED + count)))
    if not bool(torch.isfinite(x0).all()):
        return {"diverged": True, "success": 0.0, "coverage": 0.0}
    images = system.denoiser.decode(x0)
    classes = world.oracle.classify(images)
    counts = torch.bincount(classes, minlength=10).tolist()
    if run.score:
        sizes = jpeg_bytes(images)
        mean_grade = float(graded(images, run.score).mean())
        return {"jpeg_bytes": float(sizes.mean()), "mean_grade": mean_grade, "classes": counts, "sheet": images[:SHEET]}
    taste = user.taste(step)
    found = {"classes": counts, "sheet": images[:SHEET], **measures(world, images, classes, taste)}
    if run.system == "base":
        kept = torch.isin(classes, torch.tensor(taste)).nonzero()[:FILTERED, 0]
        found["frechet_filtered"] = measures(world, images[kept], classes[kept], taste)["frechet"]
        found["filtered"] = len(kept)
    return found


def measures(world: World, images: Tensor, classes: Tensor, taste: tuple[int, ...]) -> dict[str, Any]:
    """Success, coverage, and the Fréchet distance of all samples to the real images of the taste."""
    with torch.no_grad():
        features = torch.cat([world.oracle.features(chunk) for chunk in images.split(256)])
    real = world.real[torch.isin(world.real_classes, torch.tensor(taste))]
    return {
        "success": success_rate(classes, taste),
        "coverage": coverage(classes, taste) if len(taste) > 1 else None,
        "frechet": frechet_distance(features, real) if len(images) >= 100 else None,
        "evaluated": len(images),
    }
