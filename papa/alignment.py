"""Measures of alignment, as reported in docs/results, on samples from fixed evaluation seeds.

A simulated user has a hidden taste, a set of the oracle's classes, and likes exactly the items of those classes.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import torch
from torch import Tensor


def success_rate(classes: Tensor, preferred: Collection[int]) -> float:
    """Share of the samples whose class is preferred. Shape: classes [n] int64."""
    return float(torch.isin(classes, torch.tensor(sorted(preferred))).double().mean())


def coverage(classes: Tensor, preferred: Collection[int]) -> float:
    """Entropy of the classes among the preferred samples over log |preferred|: 1 is even, 0 is one class or none.

    Raises ValueError for fewer than two preferred classes, where the measure means nothing.
    """
    if len(preferred) < 2:
        raise ValueError("coverage needs at least two preferred classes")
    counts = torch.stack([(classes == kind).sum() for kind in sorted(preferred)]).double()
    if counts.sum() == 0:
        return 0.0
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * shares.log()).sum() / math.log(len(preferred)))


def frechet_distance(features: Tensor, reference: Tensor) -> float:
    """‖μ₁ − μ₂‖² + Tr(Σ₁ + Σ₂ − 2 (Σ₁ Σ₂)^½) (Heusel et al., arXiv 1706.08500, eq. 6), in the oracle's feature space.

    Shape: features [n, F], reference [m, F]; n, m ≥ 2.
    """
    first, second = features.double(), reference.double()
    difference = first.mean(dim=0) - second.mean(dim=0)
    covariances = torch.cov(first.T), torch.cov(second.T)
    # Σ₁ Σ₂ is similar to a positive semi-definite matrix: its eigenvalues are real and ≥ 0 but for rounding.
    eigenvalues = torch.linalg.eigvals(covariances[0] @ covariances[1]).real.clamp(min=0)
    trace = covariances[0].trace() + covariances[1].trace() - 2 * eigenvalues.sqrt().sum()
    return float(difference.square().sum() + trace)


def calibration_error(probabilities: Tensor, happened: Tensor, bins: int = 10) -> float:
    """Expected calibration error: Σ_b n_b / n · |mean p − share that happened| over equal bins of [0, 1] (Guo et al.,
    arXiv 1706.04599, eq. 3). Shape: probabilities [n], happened [n] bool."""
    return binned_calibration_error(calibration_bins(probabilities, happened, bins))


def calibration_bins(probabilities: Tensor, happened: Tensor, bins: int = 10) -> Tensor:
    """For each of equal bins of [0, 1]: samples, the sum of their probabilities, and how many happened. The bins of
    several sets together are the sum of theirs. Shape: [n], [n] bool → [bins, 3] float64."""
    chances = probabilities.double()
    rows = torch.stack([torch.ones_like(chances), chances, happened.double()], dim=1)
    bin_of = (chances * bins).long().clamp(max=bins - 1)
    return torch.zeros(bins, 3, dtype=torch.float64).index_add(0, bin_of, rows)


def binned_calibration_error(bins: Tensor) -> float:
    """`calibration_error` of samples whose bins are known. Shape: [bins, 3]."""
    return float((bins[:, 1] - bins[:, 2]).abs().sum() / bins[:, 0].sum())


def labels_to(threshold: float, labels: Sequence[int], success: Sequence[float]) -> int | None:
    """The smallest number of labels at which the success rate reaches the threshold; None if it never does."""
    return next((count for count, rate in zip(labels, success, strict=True) if rate >= threshold), None)
