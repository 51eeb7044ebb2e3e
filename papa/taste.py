"""What a user's labels say of each other and of what is not rated: how well each stands for the backbone's own samples,
which are to be trusted, what else would be liked, and whether the taste has changed.

All but the first are put to a kernel ridge regression of the grades on the backbone's own features of the samples:
f(x) = Σ_i α_i k(x, x_i), α = (K + Λ)⁻¹ y, with k(x, x') = exp(−‖z − z'‖² / median) of standardised features z. A label
so speaks for its surroundings alone: one liked class among disliked ones is not taken for mistakes. Λ is diagonal, λ
over each label's weight: likes weigh as much in all as dislikes, and within a kind a label by its importance.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

FEWEST = 20
"""Labels below which nothing is said about a change."""


class Unrated:
    """Samples that nobody has rated, by which the labels of all users are measured: features are standardised by
    theirs, and how far apart they lie is the unit of distance.

    Shape: features [m, F].
    """

    def __init__(self, features: Tensor) -> None:
        own = features.double()
        self._mean, self._deviation = own.mean(0), own.std(0, correction=0) + 1e-6
        self.z = self.scaled(own)

    def scaled(self, features: Tensor) -> Tensor:
        """Standardised. Shape: [n, F] → [n, F] float64."""
        return (features.double() - self._mean) / self._deviation

    @cached_property
    def distance(self) -> Tensor:
        """The median squared distance of two of them that differ; 1 where none do."""
        squared = torch.pdist(self.z).square()
        apart = squared[squared > 0]
        return apart.median() if len(apart) else torch.ones((), dtype=squared.dtype)


class Taste:
    """The labels of one user, as far as they are known, seen from the backbone.

    Shape: features [n, F]; grades [n], not 0. `unrated`: samples of the backbone itself, by which importance is
    measured too. Without them the labelled samples take their place, and every label weighs alike.
    """

    def __init__(
        self, features: Tensor, grades: Tensor, unrated: Unrated | None, ridge: float, neighbours: int
    ) -> None:
        self._own = Unrated(features) if unrated is None else unrated
        self.grades = grades.double()
        self.decided = bool((grades > 0).any()) and bool((grades < 0).any())
        """Whether both kinds of labels are known: one kind alone says nothing of the other."""
        self._z = self._own.scaled(features)
        self.importance = torch.ones(len(grades))
        """p_θ*(x) / p_shown(x) up to a common factor: what is shown comes from a model that is ever less like the
        backbone, whose restriction to the taste is the ideal. Shape: [n] float32."""
        if unrated is not None and neighbours and len(grades):
            self.importance = density_ratio(self._z, unrated.z, neighbours).float()
        if self.decided:
            self._inverse = torch.linalg.inv(self._kernel(self._z) + torch.diag(ridge / self._weights()))

    def trust(self, strength: float) -> Tensor:
        """Whether the others bear each label out: σ(strength · sign(y_i) f₋ᵢ(x_i)), f₋ᵢ fitted without label i.

        f₋ᵢ(x_i) = y_i − α_i / ((K + Λ)⁻¹)_ii, so that one fit does for all. A label given by mistake is most often
        contradicted by its neighbours. All ones where the taste is not decided. Shape: [n] float32.
        """
        if not strength or not self.decided:
            return torch.ones(len(self.grades))
        without = self.grades - self._inverse @ self.grades / self._inverse.diagonal()
        agreed: Tensor = self.grades.sign() * without
        return torch.sigmoid(strength * agreed).float()

    def foretold(self, features: Tensor) -> Tensor:
        """f(x) of other samples; zeros where the taste is not decided. Shape: [m, F] → [m] float32."""
        if not self.decided:
            return torch.zeros(len(features))
        fitted: Tensor = self._kernel(self._own.scaled(features)) @ (self._inverse @ self.grades)
        return fitted.float()

    def _weights(self) -> Tensor:
        """Of each label in the fit: one on average, and as much in all for either kind. Shape: [n]."""
        weights, liked = self.importance.double(), self.grades > 0
        return weights * len(weights) / torch.where(liked, weights[liked].sum(), weights[~liked].sum()) / 2

    def _kernel(self, z: Tensor) -> Tensor:
        """k of each of `z` with each label's sample. Shape: [m, F] → [m, n]."""
        return torch.exp(-torch.cdist(z, self._z).square() / self._own.distance)


def density_ratio(shown: Tensor, own: Tensor, neighbours: int) -> Tensor:
    """p_own(x) / p_shown(x) at each of `shown`, from the kinds of its nearest `neighbours` among both sets.

    With a of them own and b shown: ((a + ½) / m) / ((b + ½) / n). The halves keep it finite; the sample itself does not
    count. Shape: [n, F], [m, F] → [n].
    """
    distances = torch.cdist(shown, torch.cat([shown, own]))
    distances[:, : len(shown)].fill_diagonal_(torch.inf)
    nearest = distances.topk(min(neighbours, distances.shape[1] - 1), largest=False).indices
    from_own = (nearest >= len(shown)).sum(1)
    return ((from_own + 0.5) / len(own)) / ((nearest.shape[1] - from_own + 0.5) / len(shown))


def changed(
    features: Tensor, grades: Tensor, unrated: Unrated | None, window: int, share: float, ridge: float, neighbours: int
) -> bool:
    """Whether of the newest `window` labels at least `share` are the opposite of what all older ones foretell.

    A mistaken label or two, or a taste that gains or loses a part, is no change; a user who now dislikes what they
    liked is one. Shape: features [n, F], grades [n].
    """
    old = len(grades) - window
    if not share or old < FEWEST:
        return False
    former = Taste(features[:old], grades[:old], unrated, ridge, neighbours)
    return former.decided and bool((former.foretold(features[old:]) * grades[old:] < 0).sum() >= share * window)
