"""Simulated users as people are. Those of the other benchmarks label every item by a fixed set of kinds.

    python -m benchmarks.alignment.people --who clicks --seed 7

| who | what they do |
|---|---|
| graded | grade by two attributes at once, the kind and the brightness, in tenths |
| tires | dislike a kind that filled half of the page before, whether they like it or not |
| clicks | only click on what they like, and look at the items further down less often; never a dislike |
| sparse | give five labels a day, for thirty days |

All of them like the same hidden kinds. The product's own loop runs as in benchmarks/alignment/served.py: what is shown
is selected by default, and so is what is judged. `mean grade` is what the person thinks of the items, −1 to 1, were
they the first that the person ever saw.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from benchmarks.alignment.runs import Run
from benchmarks.alignment.served import FIRST_SEED, TEACHING, read_taste, serve, short
from benchmarks.alignment.simulate import measures, shown_seeds
from benchmarks.alignment.systems.ours import Ours
from benchmarks.alignment.systems.registry import build
from benchmarks.alignment.world import DATA, World, never_zero, world
from papa.noise import Domain, Noise
from papa.oracle import Oracle
from papa.selection import Rule


class Person(Protocol):
    """Somebody who likes some pictures more than others. Shape: images [n, C, H, W] in [−1, 1] → [n] in [−1, 1]."""

    page: int
    pages: int

    def alone(self, images: Tensor) -> Tensor:
        """What the person thinks of each picture on its own."""

    def labels(self, images: Tensor) -> Tensor:
        """The grades that the person gives to a page, in its order; 0 where none is given."""


@dataclass(eq=False)
class Likes:
    """Likes a set of kinds and says so of every item."""

    oracle: Oracle
    kinds: tuple[int, ...]
    page: int = 10
    pages: int = 10

    def alone(self, images: Tensor) -> Tensor:
        return torch.where(torch.isin(self.oracle.classify(images), torch.tensor(self.kinds)), 1.0, -1.0)

    def labels(self, images: Tensor) -> Tensor:
        return self.alone(images)


class Graded(Likes):
    """Half of the grade is the kind, half the brightness: its distance from the middle in units of `width`.

    Brightness is the mean of a picture's values. Grades are in tenths, and never 0.
    """

    middle, width = -0.45, 0.25

    def alone(self, images: Tensor) -> Tensor:
        bright = ((images.flatten(1).mean(1) - self.middle) / self.width).clamp(-1, 1)
        return never_zero((super().alone(images) + bright) / 2)


@dataclass(eq=False)
class Tires(Likes):
    """Dislikes a kind that filled at least half of the page before."""

    _before: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))

    def labels(self, images: Tensor) -> Tensor:
        kinds = self.oracle.classify(images)
        counts = torch.bincount(self._before, minlength=int(kinds.max()) + 1)
        tired = 2 * counts[kinds] >= max(1, len(self._before))
        self._before = kinds
        return torch.where(tired, -torch.ones(len(kinds)), self.alone(images))


@dataclass(eq=False)
class Clicks(Likes):
    """Looks at the item in position i with the chance 1 / √i, and clicks if it is liked (a position-based click model,
    Craswell et al., WSDM 2008)."""

    seed: int = 0
    pages: int = 20

    def __post_init__(self) -> None:
        self._looks = Noise(self.seed, Domain.USER)

    def labels(self, images: Tensor) -> Tensor:
        looked = self._looks.uniform((len(images),)) < torch.arange(1, len(images) + 1).rsqrt()
        return (looked & (self.alone(images) > 0)).float()


def person(who: str, oracle: Oracle, kinds: tuple[int, ...], seed: int) -> Person:
    """Raises KeyError for somebody unknown."""
    if who == "clicks":
        return Clicks(oracle, kinds, seed=seed)
    if who == "sparse":
        return Likes(oracle, kinds, page=5, pages=30)
    kind: type[Likes] = {"graded": Graded, "tires": Tires}[who]
    return kind(oracle, kinds)


WHO = ("graded", "tires", "clicks", "sparse")


def cell(who: Person, run: Run, shared: World, samples: int, every: int) -> Iterator[dict[str, Any]]:
    """A record before the first page, after every `every` pages and after the last."""
    system = build(shared, run)
    assert isinstance(system, Ours)
    given = 0
    yield {"page": 0, "labels": 0, **_judged(system, who, run, shared, samples)}
    for page in range(who.pages):
        shown = serve(system, shown_seeds(run, page, who.page), Rule(), TEACHING).samples
        grades = who.labels(shown)
        told = grades != 0
        given += int(told.sum())
        if told.any():
            system.learn(shown[told], grades[told], page)
        if (page + 1) % every == 0 or page + 1 == who.pages:
            yield {"page": page + 1, "labels": given, **_judged(system, who, run, shared, samples)}


def _judged(system: Ours, who: Person, run: Run, shared: World, samples: int) -> dict[str, Any]:
    found = serve(system, list(range(FIRST_SEED, FIRST_SEED + samples)), Rule(), teaching=0.0)
    measured = measures(shared, found.samples, shared.oracle.classify(found.samples), run.taste)
    grade = float(who.alone(found.samples).mean())
    rounded = {name: None if each is None else round(float(each), 4) for name, each in measured.items()}
    return rounded | {"mean_grade": round(grade, 4), "draws": round(found.drawn / samples, 4)}


def table(records: list[dict[str, Any]]) -> str:
    """Markdown, a row per record."""
    rows = ["| who | taste | seed | page | labels | mean grade | success | coverage | draws |", "|" + "---|" * 9]
    for each in records:
        told = [str(each[name]) for name in ("who", "taste", "seed", "page", "labels")]
        found = [short(each[name], ".2f") for name in ("mean_grade", "success", "coverage", "draws")]
        rows.append(f"| {' | '.join(told + found)} |")
    return "\n".join(rows)


def main() -> None:
    options = _options()
    if options.table:
        print(table([json.loads(line) for line in options.table.read_text().splitlines()]))
        return
    torch.set_num_threads(1)
    shared = world("fashion_mnist", options.data, bfloat16=False)
    run = Run("ours", options.taste, options.seed)
    who = person(options.who, shared.oracle, run.taste, run.seed)
    about = {"who": options.who, "taste": "".join(map(str, run.taste)), "seed": run.seed}
    for record in cell(who, run, shared, options.samples, options.every):
        print(json.dumps(about | record), flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--who", choices=WHO, default="graded")
    parser.add_argument("--taste", type=read_taste, default=(0, 3, 8))
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--samples", type=int, default=100, help="items that are judged")
    parser.add_argument("--every", type=int, default=5, help="pages between two records")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--table", type=Path, help="only print the table of the records in this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
