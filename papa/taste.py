"""Inference from a user's labels: importance weights, trust in each label, predicted grades with their certainty, and
whether a taste has changed.

The importance weights come from a density ratio. Everything else comes from one kernel ridge regression of the grades
on the backbone's features of the samples: f(x) = Σ_i α_i k(x, x_i), α = (K + Λ)⁻¹ y, with the kernel
k(x, x') = exp(−‖z − z'‖² / median) on standardised features z. The kernel is local, so a label influences only similar
samples, and one liked class among disliked ones is not mistaken for noise. Λ is diagonal and holds λ divided by each
label's weight. Likes and dislikes have the same total weight; within a kind, labels are weighted by importance.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from papa.regions import Regions

FEWEST = 20
"""The fewest labels from which a change of taste is inferred."""
FOURIER = 1024
"""D, the length of `fourier_features`. With so many, they approximate the kernel to within a few hundredths."""
NEWTON_STEPS = 50
"""The most steps of `platt`, which usually needs about five."""
DOUBT = 2.0
"""Standard deviations of f within which its sign is in doubt."""


class Unrated:
    """Samples that nobody has labelled. They define the scale on which all users' labels are compared.

    Features are standardised by the mean and deviation of these samples, and distances are divided by their median.

    Shape: features [m, F].
    """

    def __init__(self, features: Tensor) -> None:
        own = features.double()
        self.mean, self.deviation = own.mean(0), own.std(0, correction=0) + 1e-6
        self.z = self.scaled(own)

    def scaled(self, features: Tensor) -> Tensor:
        """Standardises features. Shape: [n, F] → [n, F] float64."""
        return (features.double() - self.mean) / self.deviation

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
        self.grades, self._ridge = grades.double(), ridge
        self.decided = bool((grades > 0).any()) and bool((grades < 0).any())
        """Whether there are both likes and dislikes: one kind alone cannot be regressed."""
        self._z = self._own.scaled(features)
        self.importance = torch.ones(len(grades))
        """p_θ*(x) / p_shown(x) up to a common factor. Shown samples come from a model that moves away from the
        backbone, while the ideal is the backbone restricted to the taste. Shape: [n] float32."""
        if unrated is not None and neighbours and len(grades):
            self.importance = density_ratio(self._z, unrated.z, neighbours).float()
        if self.decided:
            self._inverse = torch.linalg.inv(self._kernel(self._z) + self._noise())

    def trust(self, strength: float) -> Tensor:
        """How far the other labels agree with each label: σ(strength · sign(y_i) f₋ᵢ(x_i)).

        f₋ᵢ is fitted without label i (`left_out`). The neighbours of a mistaken label usually contradict it. All ones
        unless `decided`. Shape: [n] float32.
        """
        if not strength or not self.decided:
            return torch.ones(len(self.grades))
        agreed: Tensor = self.grades.sign() * left_out(self._inverse, self.grades)
        return torch.sigmoid(strength * agreed).float()

    def head(self) -> Head | None:
        """The same regression in Fourier features, calibrated, in the form that a revision stores.

        K̂ = Φ Φᵀ replaces K, so that w = Φᵀ (K̂ + Λ)⁻¹ y. None unless `decided`.
        """
        if not self.decided:
            return None
        own = self._own
        seen = fourier_features(self._z, float(own.distance))
        inverse = torch.linalg.inv(seen @ seen.T + self._noise())
        return Head(
            mean=own.mean.float(),
            deviation=own.deviation.float(),
            coefficients=(seen.T @ (inverse @ self.grades)).float(),
            distance=float(own.distance),
            calibration=platt(left_out(inverse, self.grades), self.grades > 0),
            labels=len(self.grades),
        )

    def questions(self, features: Tensor, count: int) -> list[int]:
        """The indexes of at most `count` samples whose labels would teach most, the most informative first.

        The largest 2 √variance(x) − |f(x)| is taken, where a like is hardest to tell from a dislike (the straddle
        heuristic, Bryan et al., NIPS 2005). After each, the variances are those with its label known, so that the next
        one lies elsewhere. Samples whose sign is certain, where this is not positive, are left out; so are all of them
        unless `decided`. Shape: [m, F].
        """
        if not self.decided:
            return []
        z = self._own.scaled(features)
        kernel = self._kernel(z)
        explained = kernel @ self._inverse
        variance = 1 - (explained * kernel).sum(1)
        unsure = (kernel @ (self._inverse @ self.grades)).abs()
        found, known = list[int](), list[Tensor]()
        for _ in range(min(count, len(z))):
            score = DOUBT * variance.clamp(min=0).sqrt() - unsure
            score[found] = -torch.inf
            best = int(score.argmax())
            if float(score[best]) <= 0:
                break
            found.append(best)
            column = torch.exp(-(z - z[best]).square().sum(1) / self._own.distance) - explained @ kernel[best]
            column = column - sum((part * part[best] for part in known), torch.zeros_like(column))
            known.append(column / (column[best] + self._ridge).sqrt())
            variance = variance - known[-1].square()
        return found

    def foretold(self, features: Tensor) -> Tensor:
        """Predicts f(x) for other samples; zeros unless `decided`. Shape: [m, F] → [m] float32."""
        if not self.decided:
            return torch.zeros(len(features))
        fitted: Tensor = self._kernel(self._own.scaled(features)) @ (self._inverse @ self.grades)
        return fitted.float()

    def _noise(self) -> Tensor:
        """Λ. Shape: [n, n]."""
        return torch.diag(self._ridge / self._weights())

    def _weights(self) -> Tensor:
        """The weight of each label in the fit: 1 on average, with equal totals for likes and dislikes. Shape: [n]."""
        weights, liked = self.importance.double(), self.grades > 0
        return weights * len(weights) / torch.where(liked, weights[liked].sum(), weights[~liked].sum()) / 2

    def _kernel(self, z: Tensor) -> Tensor:
        """k between each row of `z` and each labelled sample. Shape: [m, F] → [m, n]."""
        return torch.exp(-torch.cdist(z, self._z).square() / self._own.distance)


def likely(foretold: Tensor, strength: float) -> Tensor:
    """σ(strength · f(x)), the probability of a like; ½ where the labels say nothing.

    `Taste.trust` judges labels by the same function. With ½, the model keeps showing some samples of a kind that nobody
    has labelled, and later labels decide. Shape: [m] → [m] float32 in [0, 1].
    """
    return torch.sigmoid(strength * foretold)


def left_out(inverse: Tensor, grades: Tensor) -> Tensor:
    """f₋ᵢ(x_i) = y_i − α_i / ((K + Λ)⁻¹)_ii, the prediction for each labelled sample from all other labels.

    One fit gives all of them (Rasmussen & Williams, Gaussian Processes for Machine Learning, eq. 5.12).

    Shape: `inverse` of K + Λ [n, n], grades [n] → [n] float64.
    """
    without: Tensor = grades - inverse @ grades / inverse.diagonal()
    return without


def fourier_features(z: Tensor, distance: float) -> Tensor:
    """φ(z) with φ(z) · φ(z') ≈ exp(−‖z − z'‖² / distance): √(2/D) cos(ω z + b), ω ~ N(0, 2 / distance), b ~ U[0, 2π)
    (Rahimi & Recht, Random Features for Large-Scale Kernel Machines, NIPS 2007).

    A fit in these features takes D numbers whatever the number of labels, and stores no sample.
    Shape: [n, F] → [n, D], float64.
    """
    frequencies, phases = _frequencies(z.shape[1])
    phase = z.double() @ frequencies.T * math.sqrt(2 / distance) + phases
    return math.sqrt(2 / FOURIER) * phase.cos()


@cache
def _frequencies(width: int) -> tuple[Tensor, Tensor]:
    """Standard normal frequencies and uniform phases, from a hash: stored heads depend on them, so they never change.

    Shape: [D, F], [D] float64.
    """
    drawn = [hashlib.shake_128(f"fourier/{row}".encode()).digest(4 * (width + 1)) for row in range(FOURIER)]
    uniform = (np.frombuffer(b"".join(drawn), "<u4").astype(np.float64) + 0.5) / 2**32
    table = torch.from_numpy(uniform).view(FOURIER, width + 1)
    return torch.special.ndtri(table[:, :-1]), 2 * math.pi * table[:, -1]


@dataclass(frozen=True, eq=False)
class Head:
    """Predicts the probability that a revision's user likes a sample, from the backbone's features of that sample.

    p(x) = σ(a f(x) + b), f(x) = w · φ(z), z the standardised features; (a, b) is the `calibration`.
    Shape: `mean`, `deviation` [F] float32; `coefficients` w [D] float32. `distance` divides the squared
    distances in the kernel. `labels` is the number of labels that it was made from, 0 in heads of before that field.
    """

    mean: Tensor
    deviation: Tensor
    coefficients: Tensor
    distance: float
    calibration: tuple[float, float]
    labels: int = 0
    regions: Regions | None = None
    typical_chances: Tensor | None = None
    """`papa.regions.typical_chances`. Shape: [k]; None for a backbone without a pool."""
    questions: tuple[int, ...] = ()
    """Seeds of samples of the backbone whose labels would teach most, the most informative first."""

    def scaled(self, features: Tensor) -> Tensor:
        """Standardises features. Shape: [m, F] → [m, F] float64."""
        return (features.double() - self.mean) / self.deviation

    def probability(self, features: Tensor) -> Tensor:
        """The chance that the user likes each sample. Shape: [m, F] → [m] float32 in [0, 1]."""
        slope, intercept = self.calibration
        f = fourier_features(self.scaled(features), self.distance) @ self.coefficients.double()
        return torch.sigmoid(slope * f + intercept).float()

    def typical(self, features: Tensor) -> Tensor | None:
        """The chance that is typical of liked samples in the region of each sample. Shape: [m, F] → [m] float32; None
        where no region is known."""
        if self.regions is None or self.typical_chances is None:
            return None
        return self.typical_chances[self.regions.find(self.scaled(features))]


def platt(values: Tensor, liked: Tensor) -> tuple[float, float]:
    """(a, b) of P(liked | f) = σ(a f + b): the maximum likelihood for values f of labels that f was not fitted on.

    As by Platt (Advances in Large Margin Classifiers, 1999) the targets are (n₊ + 1) / (n₊ + 2) and 1 / (n₋ + 2), which
    keeps few labels from certainty; Newton's method with backtracking as by Lin, Lin and Weng (Machine Learning 68,
    2007). a ≥ 0: values that order the labels no better than chance leave their share of likes alone.
    Shape: values [n] float64, liked [n] bool.
    """
    likes = int(liked.sum())
    target = torch.where(liked, (likes + 1) / (likes + 2), 1 / (len(liked) - likes + 2)).double()
    design = torch.stack([values.double(), torch.ones_like(target)], dim=1)
    share = float(target.mean())
    prior = torch.tensor([0.0, math.log(share / (1 - share))], dtype=torch.float64)
    best = prior
    for _ in range(NEWTON_STEPS):
        chance = torch.sigmoid(design @ best)
        gradient = design.T @ (chance - target)
        curvature = design.T @ (design * (chance * (1 - chance))[:, None]) + 1e-9 * torch.eye(2, dtype=torch.float64)
        step, scale = torch.linalg.solve(curvature, gradient), 1.0
        before = _cross_entropy(design @ best, target)
        while _cross_entropy(design @ (best - scale * step), target) > before and scale > 1e-6:
            scale /= 2
        best = best - scale * step
        if float(gradient.abs().max()) < 1e-8:
            break
    slope, intercept = (best if best[0] > 0 else prior).tolist()
    return slope, intercept


def _cross_entropy(logits: Tensor, target: Tensor) -> float:
    return float((F.softplus(logits) - target * logits).sum())


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
