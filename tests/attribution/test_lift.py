"""The intervals of experiments: against known values, a naive computation, and thousands of simulated experiments."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from papa_serving.attribution.lift import Sums, difference, rate_interval, relative_lift, student

EXPERIMENTS = 2_000
Users = tuple[NDArray[np.int64], NDArray[np.int64]]


def sums(users: Users) -> Sums:
    shown, hits = users
    return Sums(
        len(shown), int(shown.sum()), int((shown**2).sum()), int(hits.sum()), int((hits**2).sum()),
        int((hits * shown).sum()),
    )  # fmt: skip


def draw(random: np.random.Generator, users: int, rate: float) -> Users:
    """Users who differ: each has a taste of their own, and some are shown ten times as much as others."""
    shown = random.geometric(0.05, users)
    taste = random.beta(3 * rate, 3 * (1 - rate), users)
    return shown, random.binomial(shown, taste)


@pytest.mark.parametrize(
    ("freedom", "quantile", "within"),
    [(2, 4.3027, 0.01), (4, 2.7764, 0.001), (8, 2.3060, 1e-4), (30, 2.0423, 1e-4), (1e9, 1.95996, 1e-5)],
)
def test_students_quantiles_are_those_of_the_tables(freedom: float, quantile: float, within: float) -> None:
    assert student(freedom) == pytest.approx(quantile, rel=within)


def test_the_variance_is_that_of_the_residuals() -> None:
    shown, hits = np.array([10, 20, 5, 1]), np.array([3, 1, 5, 0])
    rate = hits.sum() / shown.sum()
    effective = shown.sum() ** 2 / (shown**2).sum()
    naive = effective / (effective - 1) * ((hits - rate * shown) ** 2).sum() / shown.sum() ** 2
    assert sums((shown, hits)).variance == pytest.approx(naive)


def test_independent_items_give_wilsons_own_interval() -> None:
    """One item for each user: 20 of 100, whose interval by the textbook is [0.1334, 0.2888]."""
    hits = np.array([1] * 20 + [0] * 80)
    interval = rate_interval(sums((np.ones(100, np.int64), hits)))
    assert (interval.low, interval.high) == pytest.approx((0.1334, 0.2888), abs=0.003)


@pytest.mark.parametrize("hits", [0, 1])
def test_rates_of_none_and_all_have_honest_intervals(hits: int) -> None:
    interval = rate_interval(sums((np.full(50, 4), np.full(50, 4 * hits))))
    assert interval.low <= interval.estimate == hits <= interval.high
    assert 0.03 < interval.high - interval.low < 0.2


def test_what_is_too_little_says_nothing() -> None:
    nobody, one = Sums(), sums((np.array([5]), np.array([2])))
    for few in (nobody, one):
        assert (rate_interval(few).low, rate_interval(few).high) == (0.0, 1.0)
        assert not difference(few, sums((np.full(50, 4), np.full(50, 2)))).excludes_zero
        assert relative_lift(few, sums((np.full(50, 4), np.full(50, 2)))) is None
    assert not difference(nobody, nobody).excludes_zero


def test_several_hits_of_one_item_are_no_probability() -> None:
    interval = rate_interval(sums((np.array([1, 2, 1]), np.array([3, 4, 2]))))
    assert interval.low < interval.estimate == 9 / 4 < interval.high
    assert all(map(math.isfinite, (interval.low, interval.high)))


def test_a_against_a_is_a_false_alarm_in_one_of_twenty() -> None:
    random = np.random.default_rng(7)
    alarms = sum(
        difference(sums(draw(random, 200, 0.2)), sums(draw(random, 400, 0.2))).excludes_zero for _ in range(EXPERIMENTS)
    )
    assert abs(alarms / EXPERIMENTS - 0.05) <= 0.015


def test_an_interval_that_counts_items_would_be_wrong() -> None:
    """The reason for all this: with items as the unit, A against A alarms far more often."""
    random = np.random.default_rng(7)

    def by_items(users: Users) -> Sums:
        shown, hits = int(users[0].sum()), int(users[1].sum())
        return Sums(shown, shown, shown, hits, hits, hits)

    alarms = sum(
        difference(by_items(draw(random, 200, 0.2)), by_items(draw(random, 400, 0.2))).excludes_zero for _ in range(300)
    )
    assert alarms / 300 > 0.3


def test_a_known_lift_is_inside_its_interval_and_found() -> None:
    random = np.random.default_rng(11)
    inside = relative = found = 0
    for _ in range(EXPERIMENTS):
        arm, baseline = sums(draw(random, 600, 0.25)), sums(draw(random, 600, 0.2))
        interval, lift = difference(arm, baseline), relative_lift(arm, baseline)
        assert lift is not None
        inside += interval.low <= 0.05 <= interval.high
        relative += lift.low <= 0.25 <= lift.high
        found += interval.low > 0
    assert abs(inside / EXPERIMENTS - 0.95) <= 0.015
    assert abs(relative / EXPERIMENTS - 0.95) <= 0.015
    assert found / EXPERIMENTS > 0.8


def test_the_rate_of_one_arm_is_inside_its_interval() -> None:
    random = np.random.default_rng(13)
    inside = 0
    for _ in range(EXPERIMENTS):
        interval = rate_interval(sums(draw(random, 400, 0.1)))
        inside += interval.low <= 0.1 <= interval.high
    assert abs(inside / EXPERIMENTS - 0.95) <= 0.015
