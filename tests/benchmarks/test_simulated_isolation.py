"""Simulated schedulers: all serve everybody; only the product's keeps a flood from lengthening the steps of others."""

from __future__ import annotations

import pytest

from benchmarks.isolation.simulated import POLICIES, latencies, ratio

SECONDS = 12.0


@pytest.mark.parametrize("policy", POLICIES)
def test_everybody_is_served_in_the_same_time_where_there_is_no_flood(policy: str) -> None:
    quiet = latencies(POLICIES[policy](), 8.0, flooded=False, seconds=SECONDS)
    assert len(quiet) > 20
    assert max(quiet) < 2 * min(quiet)


def test_work_conserving_schedulers_let_a_flood_lengthen_the_steps_of_others() -> None:
    product, *published = (ratio(policy, 8.0, SECONDS) for policy in POLICIES)
    assert product < 2 < min(published)
