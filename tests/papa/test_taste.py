"""Tests of papa.taste: importance, trust, predictions and changes of taste."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from papa.noise import Noise
from papa.taste import (
    FOURIER,
    Taste,
    Unrated,
    changed,
    density_ratio,
    fourier_features,
    left_out,
    likely,
    platt,
)

RIDGE, NEIGHBOURS = 0.3, 10


def around(*centres: float, spread: float = 0.2, seed: int = 0) -> Tensor:
    """Points of four features near (c, c, c, c). Shape: [n, 4] float16."""
    noise = torch.randn(len(centres), 4, generator=torch.Generator().manual_seed(seed))
    return (torch.tensor(centres)[:, None] + spread * noise).half()


SIDES = torch.tensor([1.0] * 20 + [-1.0] * 40)


def two_kinds(flipped: tuple[int, ...] = ()) -> tuple[Tensor, Tensor]:
    """Twenty liked samples of one kind and forty disliked of another, but for those whose label was `flipped`."""
    grades = SIDES.clone()
    grades[list(flipped)] *= -1
    return around(*SIDES.tolist()), grades


def test_labels_that_the_others_contradict_are_not_trusted() -> None:
    flipped = [3, 25, 50]
    features, grades = two_kinds(tuple(flipped))
    trusted = Taste(features, grades, None, RIDGE, NEIGHBOURS).trust(8.0)
    right = torch.ones(60, dtype=torch.bool)
    right[flipped] = False
    assert trusted[right].min() > 0.5 > 10 * trusted[flipped].max()
    assert torch.equal(Taste(features, grades, None, RIDGE, NEIGHBOURS).trust(0.0), torch.ones(60))


def test_a_liked_class_among_disliked_ones_keeps_its_trust() -> None:
    """Liked on both ends and in the middle, disliked between: no line separates them."""
    centres = torch.tensor([-2.0] * 12 + [-1.0] * 12 + [0.0] * 12 + [1.0] * 12 + [2.0] * 12)
    grades = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0]).repeat_interleave(12)
    taste = Taste(around(*centres.tolist(), spread=0.1), grades, None, RIDGE, NEIGHBOURS)
    assert taste.trust(8.0).min() > 0.5


@pytest.mark.parametrize("unrated", [None, around(*[1.0] * 30, *[-1.0] * 30, seed=1)])
def test_trust_is_that_of_a_regression_without_the_label_itself(unrated: Tensor | None) -> None:
    """Compares the closed form of one fit with a separate fit for each label."""
    features, grades = two_kinds((3,))
    taste = Taste(features, grades, None if unrated is None else Unrated(unrated), RIDGE, NEIGHBOURS)
    own, x, y = (features if unrated is None else unrated).double(), features.double(), grades.double()
    z, reference = ((each - own.mean(0)) / own.std(0, correction=0) for each in (x, own))
    pairs = torch.pdist(reference).square()
    kernel = torch.exp(-(z[:, None] - z[None]).square().sum(2) / pairs.median())
    weight = taste.importance.double()
    noise = torch.zeros(60, dtype=torch.double)
    for kind in (y > 0, y < 0):
        noise[kind] = RIDGE * 2 * weight[kind].sum() / 60 / weight[kind]
    expected = torch.zeros(60)
    for row in range(60):
        rest = torch.arange(60) != row
        alpha = torch.linalg.solve(kernel[rest][:, rest] + torch.diag(noise[rest]), y[rest])
        expected[row] = torch.sigmoid(8 * y[row].sign() * (kernel[row, rest] @ alpha))
    torch.testing.assert_close(taste.trust(8.0), expected, atol=1e-3, rtol=1e-3)


def test_labels_foretell_the_grades_of_what_resembles_them() -> None:
    features, grades = two_kinds()
    others = around(*SIDES.tolist(), seed=1)
    found = Taste(features, grades, Unrated(others), RIDGE, NEIGHBOURS).foretold(others)
    assert bool((found * SIDES > 0.5).all())


def test_a_like_is_an_even_chance_where_labels_say_nothing() -> None:
    taste = Taste(*two_kinds(), Unrated(around(*SIDES.tolist(), *[60.0] * 3)), RIDGE, NEIGHBOURS)
    liked, disliked, unknown = likely(taste.foretold(around(1.0, -1.0, 60.0)), 8.0).tolist()
    assert liked > 0.9 and disliked < 0.1
    assert unknown == pytest.approx(0.5, abs=0.05)
    bright = taste.foretold(around(1.0))
    assert likely(bright, 2.0) < likely(bright, 8.0)


def test_one_kind_of_labels_says_nothing_of_the_other() -> None:
    features, grades = two_kinds()
    taste = Taste(features, grades.abs(), None, RIDGE, NEIGHBOURS)
    assert not taste.decided
    assert torch.equal(taste.trust(8.0), torch.ones(60))
    assert not taste.foretold(features).any()
    assert len(Taste(features[:0], grades[:0], Unrated(features), RIDGE, NEIGHBOURS).importance) == 0


def test_a_density_ratio_tells_how_much_oftener_the_backbone_makes_something() -> None:
    """Two kinds that the backbone makes alike, and of which one was shown four times as often as the other."""
    shown = around(*[1.0] * 160, *[-1.0] * 40)
    own = around(*[1.0] * 200, *[-1.0] * 200, seed=1)
    ratio = density_ratio(shown.double(), own.double(), 20)
    assert ratio[160:].mean() / ratio[:160].mean() == pytest.approx(4, rel=0.35)
    assert bool(torch.isfinite(density_ratio(shown[:1].double(), own[:3].double(), 20)).all())


def test_without_samples_of_the_backbone_or_neighbours_all_labels_weigh_alike() -> None:
    features, grades = two_kinds()
    own = Unrated(around(*[1.0] * 30, seed=1))
    for taste in (Taste(features, grades, None, RIDGE, NEIGHBOURS), Taste(features, grades, own, RIDGE, 0)):
        assert torch.equal(taste.importance, torch.ones(60))
    assert not torch.equal(Taste(features, grades, own, RIDGE, NEIGHBOURS).importance, torch.ones(60))


def test_features_that_do_not_vary_do_no_harm() -> None:
    features, grades = torch.ones(60, 4).half(), SIDES
    taste = Taste(features, grades, Unrated(features), RIDGE, NEIGHBOURS)
    for found in (taste.trust(8.0), taste.foretold(features), taste.importance):
        assert bool(torch.isfinite(found).all())


@pytest.mark.parametrize(
    ("contradicted", "share", "found"), [(10, 0.9, True), (9, 0.9, True), (8, 0.9, False), (10, 0.0, False)]
)
def test_a_taste_has_changed_when_the_newest_labels_contradict_the_older_ones(
    contradicted: int, share: float, found: bool
) -> None:
    features, grades = two_kinds()
    features = torch.cat([features, features[:10]])
    grades = torch.cat([grades, torch.where(torch.arange(10) < contradicted, -1.0, 1.0)])
    for unrated in (None, Unrated(around(*SIDES.tolist(), seed=1))):
        assert changed(features, grades, unrated, 10, share, RIDGE, NEIGHBOURS) == found
    few = slice(55, None)  # five older labels, all of one kind
    assert not changed(features[few], grades[few], None, 10, share, RIDGE, NEIGHBOURS)


def test_platt_finds_the_slope_and_the_intercept_that_made_the_labels() -> None:
    random = Noise(4)
    values = random.normal((20_000,)).double()
    liked = random.uniform((20_000,)) < torch.sigmoid(3 * values - 1)
    assert platt(values, liked) == pytest.approx((3, -1), abs=0.15)


def test_platt_is_where_the_likelihood_of_its_targets_is_greatest() -> None:
    values, liked = torch.tensor([-1.2, -0.4, 0.1, 0.3, 0.9, 2.0]).double(), torch.tensor([0, 0, 1, 0, 1, 1]).bool()
    target = torch.where(liked, 4 / 5, 1 / 5).double()
    slope, intercept = platt(values, liked)
    missing = target - torch.sigmoid(slope * values + intercept)
    assert abs(missing.sum()) < 1e-6 and abs((missing * values).sum()) < 1e-6


def test_values_that_order_the_labels_wrongly_leave_the_share_of_likes() -> None:
    values, liked = torch.linspace(-1, 1, 40).double(), torch.arange(40) < 10
    slope, intercept = platt(values, liked)
    assert slope == 0
    assert torch.sigmoid(torch.tensor(intercept)).item() == pytest.approx((10 * 11 / 12 + 30 / 32) / 40)


def test_a_few_labels_however_clear_give_no_certainty() -> None:
    slope, intercept = platt(torch.tensor([-9.0, 9.0]).double(), torch.tensor([False, True]))
    chances = torch.sigmoid(slope * torch.tensor([-9.0, 9.0]) + intercept)
    assert chances.tolist() == pytest.approx([1 / 3, 2 / 3], abs=1e-3)


def test_fourier_features_meet_the_kernel() -> None:
    z = Noise(5).normal((40, 30)).double()
    distance = float(torch.pdist(z).square().median())
    seen = fourier_features(z, distance)
    kernel = torch.exp(-torch.cdist(z, z).square() / distance)
    assert (seen @ seen.T - kernel).abs().max() < 5 / math.sqrt(2 * FOURIER)
    # Stored heads rest on these numbers.
    assert fourier_features(torch.zeros(1, 2), 1.0)[0, :3].tolist() == pytest.approx(PHASES, abs=1e-6)


PHASES = [-0.0246169, -0.0409266, -0.027699]


@pytest.mark.parametrize("unrated", [None, around(*[1.0] * 30, *[-1.0] * 30, seed=1)])
def test_a_head_is_a_ridge_regression_calibrated_on_what_it_was_not_fitted_on(unrated: Tensor | None) -> None:
    """Fitted once more in weight space, and once more for each label that is left out."""
    features, grades = two_kinds((3, 33))
    taste = Taste(features, grades, None if unrated is None else Unrated(unrated), RIDGE, NEIGHBOURS)
    head = taste.head()
    assert head is not None
    own = (features if unrated is None else unrated).double()
    others = around(*torch.linspace(-1.5, 1.5, 50).tolist(), seed=2)
    here, there = (
        fourier_features((each.double() - own.mean(0)) / (own.std(0, correction=0) + 1e-6), head.distance)
        for each in (features, others)
    )
    weight, y = taste.importance.double(), grades.double()
    for kind in (y > 0, y < 0):
        weight[kind] *= 60 / (2 * taste.importance[kind].sum())

    def fitted(rows: Tensor) -> Tensor:
        x, w = here[rows], (weight[rows] / RIDGE)[:, None]
        return torch.linalg.solve(x.T @ (w * x) + torch.eye(FOURIER), x.T @ (w[:, 0] * y[rows]))

    every = torch.arange(60)
    left_out = torch.stack([here[i] @ fitted(every[every != i]) for i in range(0, 60, 12)])
    slope, intercept = head.calibration
    torch.testing.assert_close(
        head.probability(others), torch.sigmoid(slope * (there @ fitted(every)) + intercept).float(), atol=1e-4, rtol=0
    )
    exact = platt(left_out_of(here, weight, y), grades > 0)
    assert (slope, intercept) == pytest.approx(exact, rel=1e-4)
    torch.testing.assert_close(left_out_of(here, weight, y)[::12], left_out, atol=1e-6, rtol=0)
    assert head.probability(around(1.0))[0] > 0.8 and head.probability(around(-1.0))[0] < 0.2
    exactly = torch.sigmoid(slope * taste.foretold(others) + intercept)
    assert (head.probability(others) - exactly).abs().mean() < 0.05


def left_out_of(here: Tensor, weight: Tensor, y: Tensor) -> Tensor:
    return left_out(torch.linalg.inv(here @ here.T + torch.diag(RIDGE / weight)), y)


def test_one_kind_of_labels_makes_no_head() -> None:
    assert Taste(around(1.0, 1.0), torch.ones(2), None, RIDGE, NEIGHBOURS).head() is None


def test_what_is_asked_is_where_a_like_is_hardest_to_tell_and_each_question_considers_those_before() -> None:
    """Computed once more from whole covariances, with the label of each question added to what is known."""
    unrated = around(*torch.linspace(-3, 3, 40).tolist(), seed=3)
    features, grades = around(-1.0, -1.2, 1.0, 1.2), torch.tensor([-1.0, -1.0, 1.0, 1.0])
    taste = Taste(features, grades, Unrated(unrated), RIDGE, 0)
    found = taste.questions(unrated, 5)
    z = Unrated(unrated).scaled(torch.cat([unrated, features]))
    distance = float(Unrated(unrated).distance)
    kernel = torch.exp(-torch.cdist(z, z).square() / distance)
    known, noise = list(range(40, 44)), [RIDGE] * 4
    f = taste.foretold(unrated).double()
    expected = []
    for _ in range(5):
        seen = kernel[known][:, known] + torch.diag(torch.tensor(noise).double())
        variance = 1 - (kernel[:40, known] @ torch.linalg.inv(seen) * kernel[:40, known]).sum(1)
        score = 2 * variance.clamp(min=0).sqrt() - f.abs()
        score[expected] = -torch.inf
        expected.append(int(score.argmax()))
        known.append(expected[-1])
        noise.append(RIDGE)
    assert found == expected
    assert len(set(found)) == 5


def test_nothing_is_asked_where_the_sign_of_every_sample_is_certain_or_nothing_is_known() -> None:
    features, grades = two_kinds()
    sure = Taste(features, grades, Unrated(features), 0.01, 0)
    assert sure.questions(features[[0, -1]], 2) == []
    assert Taste(around(1.0, 1.0), torch.ones(2), None, RIDGE, NEIGHBOURS).questions(features, 3) == []
