"""A short set of schedules, one for each kind of fault, and proof that a broken promise would be found.

`make chaos` runs many more.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.defects import DEFECTS
from tests.chaos.lanes import perform
from tests.chaos.schedule import KINDS, schedule
from tests.chaos.table import table

BROUGHT_OUT_BY = {
    "unfenced": ("stop trainer before_commit", ""),
    "resurrecting": ("stop trainer before_commit", "delete in flight"),
    "forgetful": ("lose replies", ""),
    "hasty_gateway": ("kill gateway", ""),
    "hasty_trainer": ("kill trainer after_training", ""),
}
TRIES, AT_A_TIME = 24, 4


def test_a_seed_is_a_schedule() -> None:
    assert [schedule(seed) for seed in range(100)] == [schedule(seed) for seed in range(100)]
    assert len({schedule(seed).visitors for seed in range(100)}) == 100
    assert {schedule(seed).kind for seed in range(len(KINDS))} == set(KINDS)


@pytest.mark.timeout(600)
async def test_no_promise_is_broken_under_any_kind_of_fault(tmp_path: Path) -> None:
    results = await perform([schedule(seed) for seed in range(len(KINDS))], tmp_path)
    print(table(results))
    assert {result.schedule.seed: result.violations for result in results if result.violations} == {}
    for result in results:
        assert any(each.outcome == "acknowledged" for each in result.history.submitted)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("defect", DEFECTS)
async def test_a_deliberate_defect_is_found(defect: str, tmp_path: Path) -> None:
    """Races decide whether one schedule brings it out, so several may be needed."""
    kind, also = BROUGHT_OUT_BY[defect]
    for first in range(0, TRIES, AT_A_TIME):
        plans = [schedule(seed, (kind,), also) for seed in range(first, first + AT_A_TIME)]
        results = await perform(plans, tmp_path, AT_A_TIME, defect)
        if any(result.violations for result in results):
            return
    pytest.fail(f"{TRIES} schedules did not bring out {defect}")
