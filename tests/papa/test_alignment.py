from __future__ import annotations

import math

import pytest
import torch

from papa.alignment import calibration_error, coverage, frechet_distance, labels_to, success_rate


def test_success_rate_counts_the_preferred() -> None:
    assert success_rate(torch.tensor([5, 7, 1, 9, 2, 2]), {5, 7, 9}) == pytest.approx(0.5)


def test_coverage_is_one_when_even_and_zero_when_collapsed() -> None:
    assert coverage(torch.tensor([5, 7, 9, 5, 7, 9, 1]), {5, 7, 9}) == pytest.approx(1)
    assert coverage(torch.tensor([5, 5, 5, 1]), {5, 7, 9}) == 0
    assert coverage(torch.tensor([1, 1]), {5, 7, 9}) == 0
    half = coverage(torch.tensor([5, 7]), {5, 7, 9})
    assert half == pytest.approx(math.log(2) / math.log(3))


def test_coverage_of_a_single_class_means_nothing() -> None:
    with pytest.raises(ValueError, match="two"):
        coverage(torch.tensor([5]), {5})


def test_frechet_distance_of_gaussians_has_a_closed_form() -> None:
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(200_000, 3, generator=generator, dtype=torch.float64)
    moved = base * torch.tensor([2.0, 1.0, 1.0]) + torch.tensor([0.0, 3.0, 0.0])
    # Diagonal covariances: the squared mean difference plus the squared differences of the standard deviations.
    assert frechet_distance(base, moved) == pytest.approx(9 + 1, rel=0.02)
    assert frechet_distance(base, base) == pytest.approx(0, abs=1e-6)


def test_labels_to_a_threshold() -> None:
    assert labels_to(0.9, [10, 20, 30], [0.5, 0.9, 0.8]) == 20
    assert labels_to(0.9, [10, 20], [0.5, 0.8]) is None


def test_calibration_error_is_the_mean_gap_between_what_is_said_and_what_happens() -> None:
    """Two of four in the bin of 0.8, none of four in that of 0.1."""
    probabilities = torch.tensor([0.85] * 4 + [0.15] * 4)
    happened = torch.tensor([True, True, False, False] + [False] * 4)
    assert calibration_error(probabilities, happened) == pytest.approx(0.5 * 0.35 + 0.5 * 0.15)
    assert calibration_error(torch.tensor([1.0, 0.0]), torch.tensor([True, False])) == 0
