"""Alignment in latent space: one taste, one generic prompt, the library's own update.

    python -m benchmarks.alignment.latent --backbone latent-run/pipeline --out docs/results/latent

The measures are those of the benchmark (papa.alignment, the oracle of Fashion-MNIST); the user is simulated.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from papa.alignment import coverage, success_rate
from papa.backbone.sheet import picture
from papa.backbone.train_latent import FASHION_WORDS, GENERIC
from papa.config import DEFAULT_UPDATE
from papa.denoiser import Denoiser, fast_type, load_denoiser
from papa.oracle import Oracle, load_oracle
from papa.sampler import sample
from papa.update import Labels, new_adapter, update

EVALUATION_SEED = 1_000_000


@dataclass(frozen=True)
class Point:
    """After `labels` opinions: the measures on fresh samples, and the seconds that the last interaction took."""

    labels: int
    success: float
    coverage: float
    seconds: float


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    denoiser = load_denoiser(options.backbone, autocast=fast_type("cpu"))
    oracle = load_oracle()
    draw = _Drawing(denoiser, options)
    preferred = set(options.taste)
    config = replace(DEFAULT_UPDATE, learning_rate=options.learning_rate)
    adapter, points, labels = new_adapter(denoiser), list[Point](), 0
    before = draw(None, EVALUATION_SEED, options.samples)
    points.append(_point(oracle, denoiser, before, preferred, 0, 0.0))
    print(points[-1], flush=True)
    after = before
    for step in range(options.interactions):
        started = time.perf_counter()
        shown = draw(adapter.weights, 1_000 * (step + 1), options.shown)
        classes = oracle.classify(denoiser.decode(shown))
        grades = torch.where(torch.isin(classes, torch.tensor(options.taste)), 1.0, -1.0)
        opinions = Labels(shown.to(denoiser.sample_dtype), grades, (options.prompt,) * len(shown))
        adapter, _ = update(denoiser, adapter, opinions, config, seed=step)
        labels, seconds = labels + len(shown), time.perf_counter() - started
        after = draw(adapter.weights, EVALUATION_SEED, options.samples)
        points.append(_point(oracle, denoiser, after, preferred, labels, seconds))
        print(points[-1], flush=True)
    _write(options, denoiser, draw, before, after, points)


class _Drawing:
    """Samples under the generic prompt, by seed."""

    def __init__(self, denoiser: Denoiser, options: argparse.Namespace) -> None:
        self._denoiser, self._options = denoiser, options

    def __call__(self, weights: Tensor | None, seed: int, count: int, prompt: str = "") -> Tensor:
        conditions = self._denoiser.conditions([prompt or self._options.prompt] * count, self._options.guidance)
        adapters = None if weights is None else weights.expand(count, -1)
        seeds = list(range(seed, seed + count))
        return sample(self._denoiser, seeds, adapters, "dpmpp_2m", 12, DEFAULT_UPDATE.adapt_from, conditions=conditions)


def _point(
    oracle: Oracle, denoiser: Denoiser, samples: Tensor, preferred: set[int], labels: int, seconds: float
) -> Point:
    classes = oracle.classify(denoiser.decode(samples))
    return Point(labels, success_rate(classes, preferred), coverage(classes, preferred), seconds)


def _write(
    options: argparse.Namespace, denoiser: Denoiser, draw: _Drawing, before: Tensor, after: Tensor, points: list[Point]
) -> None:
    options.out.mkdir(parents=True, exist_ok=True)
    words = torch.cat([draw(None, 0, 8, word) for word in FASHION_WORDS])
    picture(denoiser.decode(words), columns=16).save(options.out / "words.png")
    picture(denoiser.decode(before[:32])).save(options.out / "before.png")
    picture(denoiser.decode(after[:32])).save(options.out / "after.png")
    record = {
        "backbone": denoiser.backbone,
        "prompt": options.prompt,
        "guidance": options.guidance,
        "learning_rate": options.learning_rate,
        "taste": [FASHION_WORDS[each] for each in options.taste],
        "parameters": denoiser.layout.size,
        "points": [asdict(point) for point in points],
    }
    (options.out / "alignment.json").write_text(json.dumps(record, indent=1) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--out", type=Path, default=Path("docs/results/latent"))
    parser.add_argument("--prompt", default=GENERIC)
    parser.add_argument("--guidance", type=float, default=2.0)
    parser.add_argument("--learning-rate", type=float, default=DEFAULT_UPDATE.learning_rate)
    parser.add_argument("--taste", type=int, nargs="+", default=[7, 9])
    parser.add_argument("--interactions", type=int, default=10)
    parser.add_argument("--shown", type=int, default=10)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
