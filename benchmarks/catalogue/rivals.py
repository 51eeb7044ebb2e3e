"""What others would build on the same embeddings, each with the constants of `benchmarks.catalogue.tuning`.

A rival knows the items' features x, standardised and divided by √F, and the labels so far. It has no random state of
its own: what is random in a page is a function of the page's seed, so that a page that is only measured changes
nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence

import numpy as np
from numpy.typing import NDArray
from papa_serving.catalogue.page import Candidate, compose
from papa_serving.contracts.recommending import Kind, Origin
from typing_extensions import override

Floats = NDArray[np.float64]

CANDIDATES = 200
"""The best items of a diverse rival, among which maximal marginal relevance chooses."""


class Recommending(ABC):
    """One system that recommends to one user, learns from the labels, and recommends again."""

    @abstractmethod
    def page(self, count: int, seed: int, exploring: bool, beside: Collection[int] = ()) -> list[int]:
        """Items without a label that are not in `beside` either. `exploring`: as the system would show them in order
        to learn as well; without, the best that it knows."""

    @abstractmethod
    def learn(self, items: Sequence[int], grades: Sequence[float]) -> None:
        """Takes the labels of what was shown."""

    def chances(self, items: Sequence[int]) -> Floats | None:
        """P(liked) of items; None from a system without probabilities."""
        del items
        return None


class Scored(Recommending):
    """A system that orders all items by a score. Until there is a like and a dislike it shows random items.

    Shape: x [all items, F].
    """

    def __init__(self, x: Floats) -> None:
        self.x = x
        self.items: list[int] = []
        self.grades: list[float] = []

    @override
    def learn(self, items: Sequence[int], grades: Sequence[float]) -> None:
        self.items += items
        self.grades += grades
        if self.decided:
            self.fit(self.x[self.items], np.array(self.grades))

    @property
    def decided(self) -> bool:
        return min(self.grades, default=0) < 0 < max(self.grades, default=0)

    @override
    def page(self, count: int, seed: int, exploring: bool, beside: Collection[int] = ()) -> list[int]:
        rng = np.random.default_rng(seed)
        score = self.score(exploring, rng) if self.decided else rng.random(len(self.x))
        score[[*self.items, *beside]] = -np.inf
        return self.best(score, count)

    def best(self, score: Floats, count: int) -> list[int]:
        """The items of a page with these scores."""
        return _largest(score, count)

    def fit(self, x: Floats, grades: Floats) -> None:
        """Learns from all labels so far. Shape: x [n, F], grades [n]."""

    @abstractmethod
    def score(self, exploring: bool, rng: np.random.Generator) -> Floats:
        """The larger, the sooner shown. Shape: [all items]."""


class Random(Scored):
    @override
    def score(self, exploring: bool, rng: np.random.Generator) -> Floats:
        return rng.random(len(self.x))


class NearestLiked(Scored):
    """How much nearer an item is to the nearest liked one than to the nearest disliked one."""

    @override
    def fit(self, x: Floats, grades: Floats) -> None:
        liked, disliked = (_distances(self.x, x[kind]).min(1) for kind in (grades > 0, grades < 0))
        self._nearer = disliked - liked

    @override
    def score(self, exploring: bool, rng: np.random.Generator) -> Floats:
        return np.array(self._nearer)


class Logistic(Scored):
    """Logistic regression: the least Σ log loss + `penalty` ‖w‖² / 2, by Newton's method in the span of the labels."""

    penalty = 0.3

    @override
    def fit(self, x: Floats, grades: Floats) -> None:
        # By the representer theorem w = Xᵀ a, so n unknowns do for any F; b is not penalised.
        gram, target = x @ x.T, (grades > 0).astype(float)
        design = np.hstack([gram, np.ones((len(x), 1))])
        penalty = np.zeros((len(x) + 1,) * 2)
        penalty[:-1, :-1] = gram * self.penalty
        found = np.zeros(len(x) + 1)
        for _ in range(30):
            chance = _sigmoid(design @ found)
            gradient = design.T @ (chance - target) + penalty @ found
            curvature = design.T @ (design * (chance * (1 - chance))[:, None]) + penalty + 1e-8 * np.eye(len(found))
            step = np.linalg.solve(curvature, gradient)
            found -= step
            if np.abs(step).max() < 1e-8:
                break
        self._logits = self.x @ (x.T @ found[:-1]) + found[-1]

    @override
    def score(self, exploring: bool, rng: np.random.Generator) -> Floats:
        return np.array(self._logits)

    @override
    def chances(self, items: Sequence[int]) -> Floats | None:
        return _sigmoid(self._logits[list(items)]) if self.decided else None


class Linear(Scored):
    """The Bayesian linear model of both bandits: grade = θ · x + noise of variance `ridge`, θ ~ N(0, I)."""

    ridge = 1.0

    @override
    def fit(self, x: Floats, grades: Floats) -> None:
        self._seen, self._told = x, grades
        self._inverse = np.linalg.inv(x @ x.T + self.ridge * np.eye(len(x)))
        self._mean = self.x @ (x.T @ (self._inverse @ grades))


class LinUcb(Linear):
    """LinUCB (Li et al., WWW 2010): the mean and `width` deviations; by the mean alone where it need not learn."""

    width = 0.3

    @override
    def score(self, exploring: bool, rng: np.random.Generator) -> Floats:
        return np.array(self._mean + self.width * self._deviation() if exploring else self._mean)

    def _deviation(self) -> Floats:
        cross = self.x @ self._seen.T
        explained = ((cross @ self._inverse) * cross).sum(1)
        deviation: Floats = np.sqrt(np.maximum((self.x**2).sum(1) - explained, 0.0))
        return deviation


class Thompson(Linear):
    """Thompson sampling (Agrawal & Goyal, ICML 2013): each item of a page by a draw of the posterior of its own, whose
    deviation is multiplied by `width`."""

    width = 0.3

    @override
    def score(self, exploring: bool, rng: np.random.Generator) -> Floats:
        return np.array(self._mean)

    @override
    def page(self, count: int, seed: int, exploring: bool, beside: Collection[int] = ()) -> list[int]:
        if not exploring or not self.decided:
            return super().page(count, seed, exploring, beside)
        # θ = its mean + width · (a draw of the prior − what the labels would have told of it): Matheron's rule.
        rng = np.random.default_rng(seed)
        prior = rng.normal(size=(self.x.shape[1], count))
        noise = np.sqrt(self.ridge) * rng.normal(size=(len(self._seen), count))
        drawn = prior - self._seen.T @ (self._inverse @ (self._seen @ prior + noise))
        scores = self._mean[:, None] + self.width * (self.x @ drawn)
        scores[[*self.items, *beside]] = -np.inf
        chosen = list[int]()
        for score in scores.T:
            score[chosen] = -np.inf
            chosen.append(int(score.argmax()))
        return chosen


class DiverseLogistic(Logistic):
    """Logistic regression with the service's maximal marginal relevance."""

    diversity = 0.1

    @override
    def best(self, score: Floats, count: int) -> list[int]:
        return (
            _diverse(self.x, score, _sigmoid(score), count, self.diversity) if self.decided else _largest(score, count)
        )


class DiverseLinUcb(LinUcb):
    """LinUCB with the service's maximal marginal relevance, of its score as a chance, 0 for a grade of −1."""

    diversity = 0.1

    @override
    def best(self, score: Floats, count: int) -> list[int]:
        chances = np.clip((1 + score) / 2, 0.0, 1.0)
        return _diverse(self.x, score, chances, count, self.diversity) if self.decided else _largest(score, count)


RIVALS: dict[str, Callable[[Floats], Scored]] = {
    "nearest liked": NearestLiked,
    "Thompson": Thompson,
    "LinUCB": LinUcb,
    "LinUCB, diverse": DiverseLinUcb,
    "logistic": Logistic,
    "logistic, diverse": DiverseLogistic,
    "random": Random,
}


def _diverse(x: Floats, score: Floats, chances: Floats, count: int, diversity: float) -> list[int]:
    """The same choice as the service makes among items of one kind (`compose`)."""
    best = _largest(score, CANDIDATES)
    candidates = [Candidate(str(each), {0: 1.0}, x[each].astype(np.float32), float(chances[each])) for each in best]
    kind = Kind(Origin.LIKED, x[best[0]].astype(np.float32), 1.0)
    chosen = compose(candidates, [kind], [], count, diversity)
    return [int(each.candidate.item_id) for each in chosen]


def _largest(score: Floats, count: int) -> list[int]:
    """The items of the largest scores, the largest first, without those of −∞."""
    some = np.argpartition(-score, count)[:count] if count < len(score) else np.arange(len(score))
    ordered = some[np.argsort(-score[some], kind="stable")]
    return [int(index) for index in ordered if score[index] > -np.inf]


def _sigmoid(values: Floats) -> Floats:
    chances: Floats = 1 / (1 + np.exp(-np.clip(values, -30, 30)))
    return chances


def _distances(first: Floats, second: Floats) -> Floats:
    squared = (first**2).sum(1)[:, None] + (second**2).sum(1) - 2 * first @ second.T
    distances: Floats = np.sqrt(np.maximum(squared, 0.0))
    return distances
