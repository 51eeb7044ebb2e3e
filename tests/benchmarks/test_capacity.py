"""The capacity simulation: distributions, caches, and costs that add up."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks.capacity import __main__ as capacity
from benchmarks.capacity.assumptions import Behaviour, Kept, Prices
from benchmarks.capacity.cost import DAY, DAYS, GIB, Speed, cost
from benchmarks.capacity.simulation import Lru, caches, ranks, sessions

SIZE = {
    "adapter on the device": 288_768.0,
    "revision, replay full": 800_000.0,
    "of it, replay and iterate": 500_000.0,
    "item in Redis": 1_500.0,
    "waiting event in Redis": 1_200.0,
    "user after one update in Redis": 3_000.0,
}


@pytest.mark.parametrize("exponent", [0.0, 0.8, 1.0, 1.2])
def test_ranks_follow_zipf(exponent):
    found = ranks(np.random.default_rng(0).random(200_000), 1_000, exponent)
    assert found.min() == 1
    assert found.max() <= 1_000
    counts = np.bincount(found, minlength=1_001)[1:]
    edges = np.arange(1, 1_002, dtype=float)
    grown = np.log(edges) if exponent == 1 else edges ** (1 - exponent)
    expected = np.diff(grown) / (grown[-1] - grown[0])
    assert np.abs(counts / 200_000 - expected).max() < 0.005


def test_the_least_recently_used_leaves():
    cache = Lru(2)
    assert [cache.touch(user) for user in (1, 2, 1, 3, 2, 3)] == [False, False, True, False, False, True]


def test_a_round_robin_of_more_users_than_fit_never_hits():
    hits = caches(list(range(10)) * 50, slots=4, host=9)
    assert (hits.device, hits.host, hits.store) == (0.0, 0.0, 1.0)
    hits = caches(list(range(10)) * 50, slots=4, host=10)
    assert (hits.device, hits.host, hits.store) == (0.0, 1.0, 0.0)


def test_a_visit_makes_its_generations_and_other_users_come_between():
    asked = sessions(10_000, 1.0, rate=2.0, generations=4, seconds=500.0, seed=3)
    assert len(asked) % 4 == 0
    assert 800 * 4 < len(asked) < 1_200 * 4
    assert asked != sorted(asked)


def test_costs_are_those_of_the_stated_figures():
    behaviour, kept, prices = Behaviour(daily_active=0.5, generations=2), Kept(), Prices()
    found = cost(1_000, Speed(images=10.0, update=3.0), SIZE, behaviour, kept, prices, 64, 2_000)
    work = 1_000 * 10 / 10.0 + 500 * 3.0
    assert found.device_seconds == pytest.approx(work)
    assert found.pairs == pytest.approx(behaviour.peak * work / DAY)
    assert found.dollars["cores"] == pytest.approx(found.pairs * prices.two_cores_hour * 24 * DAYS)
    assert found.object_gib == pytest.approx(1_000 * kept.revisions * 800_000 / GIB)
    assert found.redis_gib == pytest.approx((10_000 * 1_500 + (1_000 + 7 * 500) * 3_000) / GIB)


def test_the_page_names_assumptions_as_such(tmp_path):
    (tmp_path / "engine" / "bytes").mkdir(parents=True)
    about = {"date": "2026-01-01", "machine": "a machine", "command": "papa bench capacity", "bytes": SIZE}
    (tmp_path / "engine" / "bytes" / "capacity.json").write_text(json.dumps(about))
    mixed = {"batch": 64, "seconds": {"32 users": [4.0, 4.0]}}
    (tmp_path / "engine" / "mixed.json").write_text(json.dumps(mixed))
    updates = {"users": 16, "seconds": {"1 at once": [32.0]}}
    (tmp_path / "engine" / "updates.json").write_text(json.dumps(updates))
    page = tmp_path / "capacity.md"
    assert capacity.main(["--results", str(tmp_path), "--page", str(page), "--report-only"]) == 0
    written = page.read_text()
    assert "| images per second, two cores, 12 steps | 16.0 |" in written
    assert "| seconds of one update of ten labels, two cores | 2.00 |" in written
    assert written.index("## Assumed, not measured") < written.index("| gpu_speed | 100.0 |")
    assert "| 100,000,000 |" in written
