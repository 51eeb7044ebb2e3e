"""Selection at serving, tried offline: is what the taste head accepts liked more often, and at what price?

    python -m benchmarks.alignment.selecting --tastes 046 238 168

For each taste the product's own loop runs for `--rounds` of ten labels. Then each seed is drawn, judged by the
revision's head, and drawn once more (`Noise` of the same seed, stream 1) where its chance is below the threshold; of
the two the likelier is kept. Reported of raw draws and of what is kept: success, coverage, Fréchet distance,
calibration error, and draws per kept item. The tastes and seeds are for choosing settings; none of them is on the
results page.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.alignment.runs import Run, Sampling
from benchmarks.alignment.simulate import SHOWN_SEED, measures
from benchmarks.alignment.systems.ours import Ours
from benchmarks.alignment.world import DATA, SimulatedUser, World, world
from papa.adapter import Adapter
from papa.alignment import calibration_error
from papa.config import DEFAULT_UPDATE
from papa.denoiser import Denoiser
from papa.sampler import sample

FIRST_SEED = 5_000_000_029
"""Of the samples that are judged; no other experiment begins from these."""
SAMPLING = Sampling()


@dataclass(frozen=True)
class Outcome:
    """Of one taste and one way of serving. `calibration` is the error of what is said of the items; `draws` are per
    item."""

    success: float
    coverage: float
    frechet: float | None
    calibration: float
    draws: float


def trained(run: Run, shared: World) -> Ours:
    """The product's loop, without evaluation in between."""
    system = Ours(shared.denoiser(), SAMPLING, run.seed, DEFAULT_UPDATE)
    user = SimulatedUser(run, shared.oracle)
    for step in range(run.rounds):
        first = SHOWN_SEED * (run.seed + 1) + 1000 * step
        shown = system.show(list(range(first, first + run.labels)))
        system.learn(shown, user.grades(shown, step), step)
    return system


@torch.no_grad()
def drawn(denoiser: Denoiser, adapter: Adapter, seeds: list[int], stream: int) -> tuple[Tensor, Tensor]:
    """One draw of each seed, and how likely it is liked. Shape: [n, C, H, W], [n]."""
    parts, how = [], (SAMPLING.sampler, SAMPLING.steps, DEFAULT_UPDATE.adapt_from)
    for start in range(0, len(seeds), 50):
        chunk = seeds[start : start + 50]
        parts.append(sample(denoiser, chunk, adapter.weights.expand(len(chunk), -1), *how, stream=stream))
    x0 = torch.cat(parts)
    if adapter.head is None:
        raise ValueError("the labels were all likes or all dislikes: nothing is known of other samples")
    return x0, adapter.head.probability(denoiser.features(x0).half())


def outcomes(run: Run, shared: World, count: int, threshold: float) -> dict[str, Outcome]:
    """Of raw draws and of selected ones."""
    system = trained(run, shared)
    seeds = list(range(FIRST_SEED, FIRST_SEED + count))
    raw, chance = drawn(system.denoiser, system.adapter, seeds, stream=0)
    again = (chance < threshold).nonzero()[:, 0]
    kept, said = raw.clone(), chance.clone()
    if len(again):
        redrawn, second = drawn(system.denoiser, system.adapter, [seeds[i] for i in again.tolist()], stream=1)
        better = second > chance[again]
        kept[again[better]], said[again[better]] = redrawn[better], second[better]
    return {
        "raw": _outcome(shared, raw, chance, run.taste, 1.0),
        "selected": _outcome(shared, kept, said, run.taste, 1 + len(again) / count),
    }


def _outcome(shared: World, x0: Tensor, chance: Tensor, taste: tuple[int, ...], draws: float) -> Outcome:
    classes = shared.oracle.classify(x0)
    found = measures(shared, x0, classes, taste)
    error = calibration_error(chance, torch.isin(classes, torch.tensor(taste)))
    return Outcome(found["success"], found["coverage"], found["frechet"], error, draws)


def main() -> None:
    options = _options()
    torch.set_num_threads(1)
    for name in options.tastes:
        taste = tuple(int(each) for each in name)
        run = replace(Run("ours", taste, options.seed, options.dataset), rounds=options.rounds)
        shared = world(options.dataset, options.data, bfloat16=False)
        for how, outcome in outcomes(run, shared, options.samples, options.threshold).items():
            print(json.dumps({"taste": taste, "seed": options.seed, "served": how, **asdict(outcome)}), flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tastes", nargs="+", default=["046", "238", "168"])
    parser.add_argument("--dataset", default="fashion_mnist")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--threshold", type=float, default=0.5)
    return parser.parse_args()


if __name__ == "__main__":
    main()
