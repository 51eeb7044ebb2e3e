"""Prototypes: the few kinds of sample that a taste consists of, each by the mean direction of its features.

An index that holds many real items finds those near a direction. So a taste is searched for by a few directions: what
the user's model draws, what the user liked, and what would teach most. Where nothing is known, they are those of the
backbone.

What the model draws is not drawn for this. An ideal adapter draws the backbone's samples x with a chance proportional
to P(liked | x), and selection accepts them with `papa.selection.Rule`. The backbone's pool has samples of it, and the
head judges them, so the accepted part of the pool stands for what would be drawn and served.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from papa.noise import Domain, Noise
from papa.pool import Pool
from papa.selection import Rule
from papa.taste import Head

ROUNDS = 10
"""Rounds of Lloyd's algorithm, which has usually settled before."""
DRAWN, LIKED, BACKBONE = 12, 8, 16
"""Prototypes of what the model draws, of what the user liked, and of what the backbone draws, at most."""


@dataclass(frozen=True, eq=False)
class Prototypes:
    """Shape: `directions` [k, F] float32, of length 1; `shares` [k] float64, which sum to 1 unless k is 0."""

    directions: Tensor
    shares: Tensor

    @classmethod
    def of(cls, features: Tensor, weights: Tensor, most: int) -> Prototypes:
        """At most `most` prototypes of weighted samples, by spherical k-means (Dhillon & Modha, Concept Decompositions
        for Large Sparse Text Data Using Clustering, Machine Learning 42, 2001).

        The first centres are samples far from one another, beginning with the last one, so that the result is a
        function of the samples alone. Samples without weight are left out, and so are prototypes without samples.
        Shape: features [n, F], weights [n] ≥ 0.
        """
        kept = (weights > 0) & features.isfinite().all(1) & (features != 0).any(1)
        directions, mass = F.normalize(features[kept].float(), dim=1), weights[kept].double()
        if not len(directions):
            return cls(directions, mass)
        centres = _apart(directions, most)
        for _ in range(ROUNDS):
            own = (directions @ centres.T).argmax(dim=1)
            sums = torch.zeros_like(centres).index_add_(0, own, directions * mass[:, None].float())
            centres = torch.where(sums.norm(dim=1, keepdim=True) > 0, F.normalize(sums, dim=1), centres)
        own = (directions @ centres.T).argmax(dim=1)
        shares = torch.zeros(len(centres), dtype=torch.float64).index_add_(0, own, mass) / mass.sum()
        return cls(centres[shares > 0], shares[shares > 0])


@dataclass(frozen=True, eq=False)
class Kinds:
    """The prototypes of one user's taste, by where they come from."""

    drawn: Prototypes
    liked: Prototypes
    questions: Prototypes


def kinds(head: Head | None, features: Tensor, grades: Tensor, pool: Pool | None) -> Kinds:
    """The kinds of a taste with these labels.

    Likes count by their grade. Where there is a head, which also has a word on whether a like was a slip, they count by
    its acceptance as well. Without a head or without a pool nothing is known of what the model draws. Shape: features
    [n, F], grades [n].
    """
    weights = grades.double().clamp(min=0)
    if head is not None and len(features):
        weights = weights * accepted(head, features)
    liked = Prototypes.of(features, weights, LIKED)
    nothing = Prototypes(torch.zeros(0, features.shape[1]), torch.zeros(0, dtype=torch.float64))
    if head is None or pool is None:
        return Kinds(nothing, liked, nothing)
    drawn = Prototypes.of(pool.features, accepted(head, pool.features), DRAWN)
    return Kinds(drawn, liked, _questions(head, pool) or nothing)


def backbone_kinds(pool: Pool | None, size: int) -> Prototypes:
    """The kinds that the backbone draws, whoever asks. Without a pool nothing is known of them, and they are random
    directions, the same ones each time. `size` is F."""
    features = Noise(0, Domain.ORDER).normal((BACKBONE, size)) if pool is None else pool.features
    return Prototypes.of(features, torch.ones(len(features)), BACKBONE)


def accepted(head: Head, features: Tensor) -> Tensor:
    """The chance that selection accepts each sample (`papa.selection.Rule`). Shape: [n, F] → [n] float64 in [0, 1]."""
    rule, chance = Rule(), head.probability(features).double().nan_to_num(0.0)
    typical = head.typical(features)
    bar = torch.full_like(chance, rule.threshold) if typical is None else typical.double()
    return (chance / bar).clamp(max=1.0) ** rule.steepness


def _questions(head: Head, pool: Pool) -> Prototypes | None:
    """The samples of the pool that the head asks about; None where it asks about none of them."""
    first = pool.first_seed
    if first is None:
        return None
    asked = [seed - first for seed in head.questions if 0 <= seed - first < len(pool.features)]
    if not asked:
        return None
    directions = F.normalize(pool.features[asked].float(), dim=1)
    return Prototypes(directions, torch.full((len(asked),), 1 / len(asked), dtype=torch.float64))


def _apart(directions: Tensor, most: int) -> Tensor:
    """At most `most` of these samples, far from one another. Shape: [n, F] → [k, F]."""
    centres = directions[-1:]
    while len(centres) < min(most, len(directions)):
        nearest = (directions @ centres.T).amax(dim=1)
        if float(nearest.min()) > 1 - 1e-6:  # all that is left lies on a centre
            break
        centres = torch.cat([centres, directions[nearest.argmin()][None]])
    return centres
