"""What a user is served after so many labels: one cell of the table of served items in docs/algorithm.md.

    python -m benchmarks.alignment.served --taste 0,3,8 --seed 1000 --labels 50 100

The product's own loop runs for one simulated user, on the shipped backbone. At each number of labels `--samples` items
are drawn from evaluation seeds of this command alone, judged by the revision's head, and drawn again where they are
judged below the threshold, at most `--overdraw` draws an item over all. Reported of the raw draws and of what is
served: success, coverage, Fréchet distance beside that of as many samples of the backbone that the oracle puts into
the taste, calibration error of what is said of the items, and draws per item. `--set steps=8` or `--set lora_rank=8`
changes a setting.
"""

from __future__ import annotations

import argparse
import ast
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.alignment.runs import Run
from benchmarks.alignment.simulate import SHOWN_SEED, measures
from benchmarks.alignment.systems.ours import Ours
from benchmarks.alignment.systems.registry import build
from benchmarks.alignment.world import DATA, SimulatedUser, World, world
from papa.alignment import calibration_error
from papa.sampler import sample

FIRST_SEED = 5_000_000_029
"""Of the samples that are judged; no other experiment begins from these."""
CHUNK = 50


@dataclass(frozen=True)
class Outcome:
    """Of one way of serving. `calibration` is the error of what is said of the items, `draws` are per item,
    `filtered` is the Fréchet distance of the backbone's own samples of the taste, as many of them."""

    success: float
    coverage: float | None
    frechet: float | None
    filtered: float | None
    calibration: float
    draws: float


@torch.no_grad()
def drawn(system: Ours, seeds: list[int], stream: int) -> tuple[Tensor, Tensor]:
    """One draw of each seed, and how likely it is liked (½ while the revision has no head). Shape: [n, ...], [n]."""
    denoiser, adapter, how = system.denoiser, system.adapter, system.sampling
    parts = []
    for start in range(0, len(seeds), CHUNK):
        chunk = seeds[start : start + CHUNK]
        weights = adapter.weights.expand(len(chunk), -1)
        parts.append(sample(denoiser, chunk, weights, how.sampler, how.steps, system.config.adapt_from, stream=stream))
    x0 = torch.cat(parts)
    if adapter.head is None:
        return x0, torch.full((len(x0),), 0.5)
    features = torch.cat([denoiser.features(chunk) for chunk in x0.split(CHUNK)])
    return x0, adapter.head.probability(features.half())


def outcomes(
    run: Run, shared: World, system: Ours, count: int, threshold: float, overdraw: float
) -> dict[str, Outcome]:
    """Of raw draws and of served ones."""
    seeds = list(range(FIRST_SEED, FIRST_SEED + count))
    raw, chance = drawn(system, seeds, stream=0)
    kept, said, draws, stream = raw.clone(), chance.clone(), count, 0
    while len(again := (said < threshold).nonzero()[:, 0]) and draws < overdraw * count:
        again, stream = again[: int(overdraw * count) - draws], stream + 1
        redrawn, second = drawn(system, [seeds[i] for i in again.tolist()], stream)
        better = second > said[again]
        kept[again[better]], said[again[better]] = redrawn[better], second[better]
        draws += len(again)
    filtered = filtered_backbone(run, shared, system, count)
    return {
        "raw": _outcome(shared, raw, chance, run.taste, 1.0, filtered),
        "served": _outcome(shared, kept, said, run.taste, draws / count, filtered),
    }


def filtered_backbone(run: Run, shared: World, system: Ours, count: int) -> float | None:
    """The Fréchet distance of `count` samples of the pool that are of the taste; None if there are fewer."""
    pool = system.denoiser.pool
    assert pool is not None
    classes = shared.oracle.classify(pool.x0)
    kept = torch.isin(classes, torch.tensor(run.taste)).nonzero()[:count, 0]
    distance: float | None = measures(shared, pool.x0[kept], classes[kept], run.taste)["frechet"]
    return distance if len(kept) == count else None


def _outcome(
    shared: World, x0: Tensor, chance: Tensor, taste: tuple[int, ...], draws: float, filtered: float | None
) -> Outcome:
    classes = shared.oracle.classify(x0)
    found = measures(shared, x0, classes, taste)
    error = calibration_error(chance, torch.isin(classes, torch.tensor(taste)))
    return Outcome(found["success"], found["coverage"], found["frechet"], filtered, error, draws)


def cell(run: Run, shared: World, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A record for each number of labels and way of serving."""
    system = build(shared, run)
    assert isinstance(system, Ours)
    user, busy = SimulatedUser(run, shared.oracle), 0.0
    for step in range(max(options.labels) // run.labels):
        first = SHOWN_SEED * (run.seed + 1) + 1000 * step
        shown = system.show(list(range(first, first + run.labels)))
        grades = user.grades(shown, step)
        started = time.process_time()
        system.learn(shown, grades, step)
        busy += time.process_time() - started
        labels = (step + 1) * run.labels
        if labels in options.labels:
            found = outcomes(run, shared, system, options.samples, options.threshold, options.overdraw)
            for how, outcome in found.items():
                rounded = {k: v if v is None else round(v, 4) for k, v in asdict(outcome).items()}
                yield {"labels": labels, "items": how, **rounded, "update_cpu_s": round(busy / (step + 1), 2)}


def main() -> None:
    options = _options()
    torch.set_num_threads(1)
    shared = world(options.dataset, options.data, bfloat16=options.bfloat16)
    run = Run("ours", options.taste, options.seed, options.dataset, flipped=options.flipped, overrides=options.set)
    about = {"dataset": run.dataset, "taste": "".join(map(str, run.taste)), "seed": run.seed}
    about |= dict(run.overrides)
    for record in cell(run, shared, options):
        print(json.dumps(about | record), flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--taste", type=_classes, default=(0, 3, 8))
    parser.add_argument("--dataset", default="fashion_mnist")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--labels", type=int, nargs="+", default=[50, 100])
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--flipped", type=float, default=0.0)
    parser.add_argument("--threshold", type=float, default=0.5)
    parser.add_argument("--overdraw", type=float, default=2.0)
    parser.add_argument("--set", type=_setting, action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--bfloat16", action=argparse.BooleanOptionalAction, default=False)
    options = parser.parse_args()
    options.set = tuple(options.set)
    return options


def _classes(text: str) -> tuple[int, ...]:
    return tuple(sorted(int(each) for each in text.split(",")))


def _setting(text: str) -> tuple[str, Any]:
    name, value = text.split("=", 1)
    return name, ast.literal_eval(value)


if __name__ == "__main__":
    main()
