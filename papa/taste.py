"""What can be inferred from a user's labels: importance weights, trust in each label, predicted grades, changed tastes.

The importance weights come from a density ratio. Everything else comes from one kernel ridge regression of the grades
on the backbone's features of the samples: f(x) = Σ_i α_i k(x, x_i), α = (K + Λ)⁻¹ y, with the kernel
k(x, x') = exp(−‖z − z'‖² / median) on standardised features z. The kernel is local, so a label influences only similar
samples, and one liked class among disliked ones is not mistaken for noise. Λ is diagonal and holds λ divided by each
label's weight. Likes and dislikes have the same total weight; within a kind, labels are weighted by importance.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

FEWEST = 20
"""The fewest labels from which a change of taste is inferred."""


class Unrated:
    """Samples that nobody has labelled. They define the scale on which all users' labels are compared.

    Features are standardised by the mean and deviation of these samples, and distances are divided by their median.

    Shape: features [m, F].
    """

    def __init__(self, features: Tensor) -> None:
        own = features.double()
        self._mean, self._deviation = own.mean(0), own.std(0, correction=0) + 1e-6
        self.z = self.scaled(own)

    def scaled(self, features: Tensor) -> Tensor:
        """Standardises features. Shape: [n, F] → [n, F] float64."""
        return (features.double() - self._mean) / self._deviation

    @cached_property
    def distance(self) -> Tensor:
        """The median squared distance between two different samples; 1 when all are equal."""
        squared = torch.pdist(self.z).square()
        apart = squared[squared > 0]
        return apart.median() if len(apart) else torch.ones((), dtype=squared.dtype)


class Taste:
    """The kernel ridge regression over the known labels of one user.

    Shape: features [n, F]; grades [n], not 0. `unrated` holds samples of the backbone, which are also needed for the
    importance weights. Without them, distances are scaled by the labelled samples and every label has the same weight.
    """

    def __init__(
        self, features: Tensor, grades: Tensor, unrated: Unrated | None, ridge: float, neighbours: int
    ) -> None:
        self._own = Unrated(features) if unrated is None else unrated
        self.grades = grades.double()
        self.decided = bool((grades > 0).any()) and bool((grades < 0).any())
        """Whether there are both likes and dislikes: one kind alone cannot be regressed."""
        self._z = self._own.scaled(features)
        self.importance = torch.ones(len(grades))
        """p_θ*(x) / p_shown(x) up to a common factor. Shown samples come from a model that moves away from the
        backbone, while the ideal is the backbone restricted to the taste. Shape: [n] float32."""
        if unrated is not None and neighbours and len(grades):
            self.importance = density_ratio(self._z, unrated.z, neighbours).float()
        if self.decided:
            self._inverse = torch.linalg.inv(self._kernel(self._z) + torch.diag(ridge / self._weights()))

    def trust(self, strength: float) -> Tensor:
        """How far the other labels agree with each label: σ(strength · sign(y_i) f₋ᵢ(x_i)).

        f₋ᵢ is fitted without label i. f₋ᵢ(x_i) = y_i − α_i / ((K + Λ)⁻¹)_ii, so one fit serves all labels. The
        neighbours of a mistaken label usually contradict it. All ones unless `decided`. Shape: [n] float32.
        """
        if not strength or not self.decided:
            return torch.ones(len(self.grades))
        without = self.grades - self._inverse @ self.grades / self._inverse.diagonal()
        agreed: Tensor = self.grades.sign() * without
        return torch.sigmoid(strength * agreed).float()

    def foretold(self, features: Tensor) -> Tensor:
        """Predicts f(x) for other samples; zeros unless `decided`. Shape: [m, F] → [m] float32."""
        if not self.decided:
            return torch.zeros(len(features))
        fitted: Tensor = self._kernel(self._own.scaled(features)) @ (self._inverse @ self.grades)
        return fitted.float()

    def _weights(self) -> Tensor:
        """The weight of each label in the fit: 1 on average, with equal totals for likes and dislikes. Shape: [n]."""
        weights, liked = self.importance.double(), self.grades > 0
        return weights * len(weights) / torch.where(liked, weights[liked].sum(), weights[~liked].sum()) / 2

    def _kernel(self, z: Tensor) -> Tensor:
        """k between each row of `z` and each labelled sample. Shape: [m, F] → [m, n]."""
        return torch.exp(-torch.cdist(z, self._z).square() / self._own.distance)


def density_ratio(shown: Tensor, own: Tensor, neighbours: int) -> Tensor:
    """Estimates p_own(x) / p_shown(x) at each row of `shown` from its nearest `neighbours` in both sets.

    If a of these neighbours are from `own` and b from `shown`, the ratio is ((a + ½) / m) / ((b + ½) / n). The halves
    keep it finite. The sample itself is not counted. Shape: [n, F], [m, F] → [n].
    """
    distances = torch.cdist(shown, torch.cat([shown, own]))
    distances[:, : len(shown)].fill_diagonal_(torch.inf)
    nearest = distances.topk(min(neighbours, distances.shape[1] - 1), largest=False).indices
    from_own = (nearest >= len(shown)).sum(1)
    return ((from_own + 0.5) / len(own)) / ((nearest.shape[1] - from_own + 0.5) / len(shown))


def changed(
    features: Tensor, grades: Tensor, unrated: Unrated | None, window: int, share: float, ridge: float, neighbours: int
) -> bool:
    """Whether at least `share` of the newest `window` labels contradict the prediction from all older labels.

    One or two mistaken labels are not a change, nor is a taste that gains or loses a part. A user who now dislikes what
    they used to like is one. Shape: features [n, F], grades [n].
    """
    old = len(grades) - window
    if not share or old < FEWEST:
        return False
    former = Taste(features[:old], grades[:old], unrated, ridge, neighbours)
    return former.decided and bool((former.foretold(features[old:]) * grades[old:] < 0).sum() >= share * window)
