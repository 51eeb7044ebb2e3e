"""What a user's labels say of each other and of what is not rated: which are to be trusted, whether the taste has
changed, and what else would be liked.

All three questions are put to a ridge regression of the grades on the backbone's own features of the samples, in its
dual form: f(x) = Σ_i α_i k(x, x_i), α = (K + Λ)⁻¹ y, where k is the mean product of standardised features and Λ holds
λ n times each label's kind's share, so that likes and dislikes weigh the same.
"""

from __future__ import annotations

import torch
from torch import Tensor

MARGIN = 0.25
"""How clearly, in grades, the other labels must contradict one before it is doubted more than half."""
FEWEST = 20
"""Labels below which nothing is said about a change."""


def trust(features: Tensor, grades: Tensor, strength: float, ridge: float) -> Tensor:
    """Whether the others bear each label out: σ(strength · (sign(y_i) f₋ᵢ(x_i) + MARGIN)), f₋ᵢ fitted without label i.

    f₋ᵢ(x_i) = y_i − α_i / ((K + Λ)⁻¹)_ii, so that one fit does for all. A label given by mistake is most often
    contradicted by its neighbours; one that they say little about is believed, since to prefer what is typical would
    narrow a taste. All ones where only one kind of label is known, which says nothing.
    Shape: features [n, F], grades [n] → [n] float32.
    """
    if not strength or not _both_kinds(grades):
        return torch.ones(len(grades))
    scaled, y = _scaled(features, features), grades.double()
    inverse = _inverse(scaled, y, ridge)
    without = y - inverse @ y / inverse.diagonal()
    return torch.sigmoid(strength * (y.sign() * without + MARGIN)).float()


def changed(features: Tensor, grades: Tensor, window: int, share: float, ridge: float) -> bool:
    """Whether of the newest `window` labels at least `share` are the opposite of what all older ones foretell.

    A mistaken label or two, or a taste that gains or loses a part, is no change; a user who now dislikes what they
    liked is one. Shape: features [n, F], grades [n].
    """
    old = len(grades) - window
    if not share or old < FEWEST or not _both_kinds(grades[:old]):
        return False
    scaled = _scaled(features[:old], features)
    expected = _predicted(scaled[:old], grades[:old].double(), scaled[old:], ridge)
    return bool((expected * grades[old:] < 0).sum() >= share * window)


def foretold(features: Tensor, grades: Tensor, others: Tensor, ridge: float) -> Tensor | None:
    """f(x) of unrated samples; None where only one kind of label is known, which foretells nothing.

    Standardised by the others, which do not come from the loop. Shape: features [n, F], grades [n], others [m, F] →
    [m] float32.
    """
    if not _both_kinds(grades):
        return None
    return _predicted(_scaled(others, features), grades.double(), _scaled(others, others), ridge).float()


def _predicted(scaled: Tensor, y: Tensor, asked: Tensor, ridge: float) -> Tensor:
    """f at `asked`."""
    return asked @ scaled.T / scaled.shape[1] @ (_inverse(scaled, y, ridge) @ y)


def _both_kinds(grades: Tensor) -> bool:
    return bool((grades > 0).any()) and bool((grades < 0).any())


def _scaled(reference: Tensor, features: Tensor) -> Tensor:
    reference = reference.double()
    return (features.double() - reference.mean(0)) / (reference.std(0) + 1e-6)


def _inverse(scaled: Tensor, y: Tensor, ridge: float) -> Tensor:
    """(K + Λ)⁻¹."""
    share = (y > 0).double().mean()
    noise = ridge * len(y) * 2 * torch.where(y > 0, share, 1 - share)
    inverse: Tensor = torch.linalg.inv(scaled @ scaled.T / scaled.shape[1] + torch.diag(noise))
    return inverse
