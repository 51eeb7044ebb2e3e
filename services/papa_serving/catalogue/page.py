"""Composes a page: which of the candidates are recommended, in what order.

| step | function | what it does |
|---|---|---|
| share out | `turns` | gives each kind of a taste its part of the page |
| choose | `compose` | takes for each turn the best candidate of its kind, by maximal marginal relevance |

Without the first step the page would go to whatever the taste head is surest of: who likes bags and pullovers would be
shown bags. Each kind therefore has the share of the page that it has of the taste (calibrated recommendations: Steck,
RecSys 2018). A kind of which the catalogue has nothing that is worth its turn leaves it to the others.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from papa_serving.contracts.recommending import Kind, Origin, Taste

DRAWN_PART = 0.5
"""The part of the page for what the model draws, where it is known what the user liked as well."""
WORTHY = 0.7
"""A kind's best candidate must be at least so likely to be liked, in multiples of the page's best one."""
SAMPLE = 128
"""Candidates from which the scale of their distances is taken."""

_TEACHING = (Origin.QUESTION, Origin.BACKBONE)


@dataclass(frozen=True, eq=False)
class Candidate:
    """An item that searches have found. `near` maps the number of each kind near which it was found to the similarity
    of their directions, in [0, 1].

    `chance` is P(liked), NaN where it is not known. Shape: embedding [F].
    """

    item_id: str
    near: Mapping[int, float]
    embedding: NDArray[np.float32]
    chance: float = math.nan


class Chosen(NamedTuple):
    """A candidate that is recommended, and the number of the kind that it was taken for."""

    candidate: Candidate
    kind: int


def turns(taste: Taste, count: int, exploration: float, rng: np.random.Generator) -> list[int]:
    """The number of the kind for each place of the page, one after another.

    Systematic sampling: a kind with the share s gets ⌊s n⌋ or ⌈s n⌉ of n places, s n on average.
    """
    of_origin = {origin: _of(taste, origin) for origin in Origin}
    questions = of_origin[Origin.QUESTION] or of_origin[Origin.BACKBONE]
    asked = min(len(questions), math.floor(exploration * count + rng.random()))
    known = of_origin[Origin.DRAWN] + of_origin[Origin.LIKED]
    if not known:
        parts = [(of_origin[Origin.BACKBONE], 1.0)]
    elif taste.labels:
        own = DRAWN_PART if of_origin[Origin.LIKED] else 1.0
        parts = [(of_origin[Origin.DRAWN], own), (of_origin[Origin.LIKED], 1 - own if of_origin[Origin.DRAWN] else 1.0)]
    else:  # likes alone do not say what is disliked: the rest looks elsewhere
        parts = [(of_origin[Origin.LIKED], DRAWN_PART), (of_origin[Origin.BACKBONE], 1 - DRAWN_PART)]
    numbers = [number for kinds, _ in parts for number in kinds]
    shares = np.array([part * taste.kinds[number].share for kinds, part in parts for number in kinds])
    chosen = _systematic(shares, count - asked, rng) if numbers else []
    ordered = _interleaved([numbers[index] for index in chosen])
    return ordered + [questions[index] for index in rng.permutation(len(questions))[:asked]]


def compose(
    candidates: Sequence[Candidate],
    kinds: Sequence[Kind],
    order: Sequence[int],
    count: int,
    diversity: float,
    kept: Sequence[Chosen] = (),
) -> list[Chosen]:
    """At most `count` candidates, of which those in `kept` are the first, whatever they are worth; their kinds have had
    their turns. For each other turn in `order` it takes, of those that were found near that kind, the largest
    (1 − δ) relevance − δ max similarity to what is chosen already (maximal marginal relevance: Carbonell & Goldstein,
    SIGIR 1998), and for turns that are left the largest of all. δ is the `diversity`.

    The relevance of a candidate is its chance; where that is not known, or where its label is to teach, it is how near
    to the kind it is. Two candidates are similar by exp(−d² / median), d the distance of their standardised embeddings.
    """
    if not candidates:
        return []
    near = np.full((len(kinds), len(candidates)), math.nan)
    for index, each in enumerate(candidates):
        for kind, similarity in each.near.items():
            near[kind, index] = similarity
    teaching = np.array([kind.origin in _TEACHING for kind in kinds])
    chances = np.array([each.chance for each in candidates])
    known = ~np.isnan(chances)
    page = _Page(np.stack([each.embedding for each in candidates]), count, diversity)
    numbers = {each.item_id: index for index, each in enumerate(candidates)}
    for chosen in kept:
        page.keep(numbers[chosen.candidate.item_id], chosen.kind)
    # Of what is not known, nothing can be said against it.
    worthy = ~known | (chances >= WORTHY * chances[known].max(initial=0.0))
    for kind in _left(order, kept):
        found = ~np.isnan(near[kind])
        if teaching[kind]:
            page.take(near[kind], found, kind)
        else:
            page.take(np.where(known, chances, near[kind]), found & worthy, kind)
    nearest = np.where(
        np.isnan(near), -1.0, near - 2.0 * teaching[:, None]
    )  # a kind of the user's own where there is one
    own = nearest.argmax(0)
    relevance = np.where(known, chances, near[own, np.arange(len(candidates))])
    usual = ~teaching[own]
    for allowed in (worthy & usual, usual, worthy | ~worthy):
        while (best := page.take(relevance, allowed, -1)) >= 0:
            page.taken[-1] = (best, int(own[best]))
    return [Chosen(candidates[index], kind) for index, kind in page.taken]


class _Page:
    """What is chosen so far."""

    def __init__(self, embeddings: NDArray[np.float32], count: int, diversity: float) -> None:
        values = embeddings.astype(np.float64)
        self._z = (values - values.mean(0)) / (values.std(0) + 1e-6)
        self._squares = (self._z**2).sum(1)
        self._scale = self._median()
        self._count, self._diversity = count, diversity
        self._nearest, self._free = np.zeros(len(embeddings)), np.ones(len(embeddings), bool)
        self.taken: list[tuple[int, int]] = []

    def keep(self, index: int, kind: int) -> None:
        """Takes this candidate."""
        self.taken.append((index, kind))
        self._free[index] = False
        self._nearest = np.maximum(self._nearest, np.exp(-self._distances(np.array([index]))[0] / self._scale))

    def take(self, relevance: NDArray[np.float64], allowed: NDArray[np.bool_], kind: int) -> int:
        """Takes the best of those that are allowed and returns its index; -1 where the page is full or none is left."""
        allowed = allowed & self._free
        if len(self.taken) == self._count or not allowed.any():
            return -1
        worth = (1 - self._diversity) * relevance - self._diversity * self._nearest
        best = int(np.where(allowed, worth, -np.inf).argmax())
        self.keep(best, kind)
        return best

    def _distances(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """The squared distances of some candidates to all. Shape: [k] → [k, n]."""
        products = self._z[rows] @ self._z.T
        squared: NDArray[np.float64] = np.maximum(self._squares[rows, None] + self._squares[None] - 2 * products, 0.0)
        return squared

    def _median(self) -> float:
        """The median squared distance of two candidates that differ, by a sample of evenly spaced ones."""
        size = len(self._z)
        rows = np.arange(size) if size <= SAMPLE else np.linspace(0, size - 1, SAMPLE).astype(np.int64)
        distances = self._distances(rows)[:, rows]
        apart = distances[distances > 1e-9]
        return float(np.median(apart)) if len(apart) else 1.0


def _left(order: Sequence[int], kept: Sequence[Chosen]) -> list[int]:
    """The turns in `order` without one for each of those kept, of its kind where there is one."""
    left = list(order)
    for chosen in kept:
        if chosen.kind in left:
            left.remove(chosen.kind)
    return left


def _of(taste: Taste, origin: Origin) -> list[int]:
    return [number for number, kind in enumerate(taste.kinds) if kind.origin is origin]


def _systematic(shares: NDArray[np.float64], count: int, rng: np.random.Generator) -> list[int]:
    """`count` indexes, each as often as its share says, to within one. Shape: shares [k], k ≥ 1."""
    ends = np.cumsum(shares) / shares.sum()
    points = (np.arange(count) + rng.random()) / max(1, count)
    return [int(index) for index in np.minimum(np.searchsorted(ends, points), len(shares) - 1)]


def _interleaved(numbers: Iterable[int]) -> list[int]:
    """The same numbers, so that those which are often there are spread over the list."""
    seen: dict[int, int] = {}
    all_numbers = list(numbers)
    totals = {number: all_numbers.count(number) for number in all_numbers}
    places = []
    for number in all_numbers:
        seen[number] = seen.get(number, 0) + 1
        places.append(((seen[number] - 0.5) / totals[number], number))
    return [number for _, number in sorted(places, key=lambda place: place[0])]
