"""What others would build on the same embeddings. Each knows the items' standardised features and the labels so far."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

Floats = NDArray[np.float64]


class Recommending(ABC):
    """One system that recommends to one user, learns from the labels, and recommends again."""

    @abstractmethod
    def page(self, count: int, exploring: bool) -> list[int]:
        """Items that were not shown before. `exploring`: as the system would show them in order to learn as well;
        without, the best that it knows."""

    @abstractmethod
    def learn(self, items: Sequence[int], grades: Sequence[float]) -> None:
        """Takes the labels of what was shown."""

    def chances(self, items: Sequence[int]) -> Floats | None:
        """P(liked) of items; None from a system without probabilities."""
        del items
        return None


class Scored(Recommending):
    """A system that orders all items by a score. Until there is a like and a dislike it shows random items."""

    def __init__(self, z: Floats, seed: int) -> None:
        self.z, self.rng = z, np.random.default_rng(seed)
        self.items: list[int] = []
        self.grades: list[float] = []

    @override
    def learn(self, items: Sequence[int], grades: Sequence[float]) -> None:
        self.items += items
        self.grades += grades
        if self.decided:
            self.fit(self.z[self.items], np.array(self.grades))

    @property
    def decided(self) -> bool:
        return min(self.grades, default=0) < 0 < max(self.grades, default=0)

    @override
    def page(self, count: int, exploring: bool) -> list[int]:
        score = self.score(exploring) if self.decided else self.rng.random(len(self.z))
        score[self.items] = -np.inf
        return [int(index) for index in np.argsort(-score)[:count]]

    def fit(self, z: Floats, grades: Floats) -> None:
        """Learns from all labels so far. Shape: z [n, F], grades [n]."""

    @abstractmethod
    def score(self, exploring: bool) -> Floats:
        """The larger, the sooner shown. Shape: [all items]."""


class Random(Scored):
    @override
    def score(self, exploring: bool) -> Floats:
        return self.rng.random(len(self.z))


class NearestLiked(Scored):
    """How much nearer an item is to the nearest liked one than to the nearest disliked one."""

    @override
    def fit(self, z: Floats, grades: Floats) -> None:
        liked, disliked = (_distances(self.z, z[kind]).min(1) for kind in (grades > 0, grades < 0))
        self._nearer = disliked - liked

    @override
    def score(self, exploring: bool) -> Floats:
        return np.array(self._nearer)


class Logistic(Scored):
    """Logistic regression with an L2 penalty, by Newton's method in the span of the labelled items."""

    PENALTY = 30.0

    @override
    def fit(self, z: Floats, grades: Floats) -> None:
        # By the representer theorem w = Zᵀ a, so n unknowns do for any F; b is not penalised.
        gram, target = z @ z.T / z.shape[1], (grades > 0).astype(float)
        design = np.hstack([gram, np.ones((len(z), 1))])
        penalty = np.zeros((len(z) + 1,) * 2)
        penalty[:-1, :-1] = gram * self.PENALTY / z.shape[1]
        found = np.zeros(len(z) + 1)
        for _ in range(30):
            chance = 1 / (1 + np.exp(-np.clip(design @ found, -30, 30)))
            gradient = design.T @ (chance - target) + penalty @ found
            curvature = design.T @ (design * (chance * (1 - chance))[:, None]) + penalty + 1e-8 * np.eye(len(found))
            step = np.linalg.solve(curvature, gradient)
            found -= step
            if np.abs(step).max() < 1e-8:
                break
        self._logits = self.z @ (z.T @ found[:-1]) / z.shape[1] + found[-1]

    @override
    def score(self, exploring: bool) -> Floats:
        return np.array(self._logits)

    @override
    def chances(self, items: Sequence[int]) -> Floats | None:
        return 1 / (1 + np.exp(-np.clip(self._logits[items], -30, 30))) if self.decided else None


class Linear(Scored):
    """The Bayesian linear model of both bandits: grade = θ · z / √F + noise, θ ~ N(0, I / RIDGE)."""

    RIDGE = 0.1

    @override
    def fit(self, z: Floats, grades: Floats) -> None:
        self._seen, scale = z / np.sqrt(z.shape[1]), np.sqrt(z.shape[1])
        gram = self._seen @ self._seen.T + self.RIDGE * np.eye(len(z))
        self._inverse = np.linalg.inv(gram)
        self._cross = (self.z / scale) @ self._seen.T
        self._mean = self._cross @ (self._inverse @ grades)
        own = (self.z**2).mean(1)
        explained = ((self._cross @ self._inverse) * self._cross).sum(1)
        self._deviation = np.sqrt(np.maximum(own - explained, 0.0))


class LinUcb(Linear):
    """LinUCB (Li et al., WWW 2010): the mean and `WIDTH` deviations; by the mean alone where it need not learn."""

    WIDTH = 0.3

    @override
    def score(self, exploring: bool) -> Floats:
        return np.array(self._mean + self.WIDTH * self._deviation if exploring else self._mean)


class Thompson(Linear):
    """Thompson sampling (Agrawal & Goyal, ICML 2013): each item of a page by a draw of the posterior of its own."""

    NOISE = 0.3

    @override
    def score(self, exploring: bool) -> Floats:
        return np.array(self._mean + self.NOISE * self._posterior_draw() if exploring else self._mean)

    @override
    def page(self, count: int, exploring: bool) -> list[int]:
        if not exploring or not self.decided:
            return super().page(count, exploring)
        chosen = list[int]()
        for _ in range(count):
            score = self.score(True)
            score[[*self.items, *chosen]] = -np.inf
            chosen.append(int(score.argmax()))
        return chosen

    def _posterior_draw(self) -> Floats:
        """A draw of (θ − its mean) · z / √F for every item, by Matheron's rule: a draw of the prior, less what the
        labels would have told of it."""
        size = self.z.shape[1]
        prior = self.rng.normal(size=size)
        noise = np.sqrt(self.RIDGE) * self.rng.normal(size=len(self._seen))
        told = self._cross @ (self._inverse @ (self._seen @ prior + noise))
        return np.array((self.z / np.sqrt(size)) @ prior - told)


RIVALS: dict[str, type[Scored]] = {
    "nearest liked": NearestLiked, "Thompson": Thompson, "LinUCB": LinUcb, "logistic": Logistic, "random": Random,
}  # fmt: skip


def _distances(first: Floats, second: Floats) -> Floats:
    squared = (first**2).sum(1)[:, None] + (second**2).sum(1) - 2 * first @ second.T
    distances: Floats = np.sqrt(np.maximum(squared, 0.0))
    return distances
