"""Users with large claims do not lengthen the steps of users with small ones, and every user makes progress."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from papa_serving.contracts.identity import UserKey
from papa_serving.generator.scheduling.cost import LARGEST_OVERHEAD, StepCost
from papa_serving.generator.scheduling.fairness import ABSENT, FAR, LENGTHENED, PATIENCE, Shares, Wanted

from tests.generator.support import GatedDenoiser, GivenCost, Run, running, submit

ANN, BOB, CAT, MALLORY = (UserKey("tenant", name) for name in ("ann", "bob", "cat", "mallory"))
FLOOD = Wanted(128, 1_536)


def rows_in(shares: Shares, wanted: dict[UserKey, Wanted], steps: int = 60) -> dict[UserKey, float]:
    """The mean number of rows of each user over so many steps."""
    limits = [shares.limits(wanted, 0.0) for _ in range(steps)]
    return {user: sum(each.get(user, wanted[user].rows) for each in limits) / steps for user in wanted}


@pytest.mark.parametrize("overhead", [0.0, 1.0, 8.0])
def test_a_flood_lengthens_the_steps_of_others_by_a_bounded_share(overhead: float) -> None:
    shares = Shares(GivenCost(overhead))
    wanted = {ANN: Wanted(1, 12), BOB: Wanted(2, 24), MALLORY: FLOOD}
    rows = rows_in(shares, wanted)
    assert (rows[ANN], rows[BOB]) == (1, 2)
    assert (overhead + 3 + rows[MALLORY]) / (overhead + 3) == pytest.approx(1 + LENGTHENED, abs=0.01)


def test_where_rows_cost_nothing_nobody_is_limited() -> None:
    assert Shares(GivenCost(LARGEST_OVERHEAD)).limits({ANN: Wanted(1, 12), MALLORY: FLOOD}, 0.0) == {}


def test_less_than_a_row_is_a_row_in_some_steps() -> None:
    shares = Shares(GivenCost(0.0))
    wanted = {ANN: Wanted(1, 12), MALLORY: FLOOD}
    rows = [shares.limits(wanted, 0.0)[MALLORY] for _ in range(100)]
    assert set(rows) == {0, 1}
    assert sum(rows) == pytest.approx(100 * LENGTHENED, abs=1)


def test_who_is_alone_has_everything() -> None:
    shares = Shares(GivenCost(0.0))
    assert shares.limits({MALLORY: FLOOD}, 0.0) == {}
    shares.ran({MALLORY: 16}, 0.0)
    assert shares.limits({MALLORY: FLOOD}, 0.1) == {}


def test_who_may_come_back_will_not_wait_for_a_long_step() -> None:
    shares = Shares(GivenCost(2.0))
    shares.ran({ANN: 1}, 0.0)
    assert shares.limits({MALLORY: FLOOD}, 1.0) == {MALLORY: 1 + (PATIENCE - 1) * 3}
    shares.ran({MALLORY: 7}, ABSENT + 1.0)
    assert shares.limits({MALLORY: FLOOD}, ABSENT + 1.0) == {}, "who was away for long is not waited for"


def test_who_asks_again_and_again_is_no_lighter_than_who_asks_once() -> None:
    """Bob has one row at a time, but always one; beside him Ann's eight are not too many."""
    shares = Shares(GivenCost(0.0))
    for step in range(100):
        shares.ran({BOB: 1}, step / 50)
    assert shares.limits({ANN: Wanted(8, 96), BOB: Wanted(1, 12)}, 2.0) == {}


def test_who_asks_for_no_more_rows_than_others_is_not_limited() -> None:
    shares = Shares(GivenCost(0.0))
    assert shares.limits({ANN: Wanted(2, 8), BOB: Wanted(2, 800)}, 0.0) == {}


WANTED = st.dictionaries(
    st.sampled_from([ANN, BOB, CAT, MALLORY]), st.builds(Wanted, st.integers(1, 99), st.integers(1, 9_999)), min_size=1
)


@settings(max_examples=80, deadline=None)
@given(WANTED, st.floats(0, 20))
def test_somebody_always_runs_and_everybody_sometimes(wanted: dict[UserKey, Wanted], overhead: float) -> None:
    shares = Shares(GivenCost(overhead))
    assert any(shares.limits(wanted, 0.0).get(user, 1) for user in wanted)
    assert all(rows_in(shares, wanted).values())
    least = min(wanted.values(), key=lambda each: each.steps).steps
    for user in shares.limits(wanted, 0.0):
        assert wanted[user].steps >= FAR * least


def test_the_cost_of_a_row_is_learned() -> None:
    cost = StepCost()
    for _ in range(5):
        cost.record(8, 0.06)
    assert cost.overhead == 0.0, "steps of one size tell nothing"
    for rows in (1, 16, 3, 8):
        cost.record(rows, 0.02 + 0.005 * rows)
    for rows in range(1, 400):
        cost.record(1 + rows % 7, 0.02 + 0.005 * (1 + rows % 7))
    assert cost.overhead == pytest.approx(4.0, rel=0.05)
    for rows in range(1, 400):
        cost.record(1 + rows % 7, 0.02)
    assert cost.overhead > 50, "and learned anew"


def test_a_flood_does_not_fill_the_steps_of_a_newcomer(gate: GatedDenoiser) -> None:
    with running(gate, max_rows=8, cost=GivenCost(0.0)) as engine:
        flood = [submit(engine, Run("mallory", 8, 40, seed=100 * number)) for number in range(4)]
        gate.advance(3)
        assert len(gate.steps[-1]) == 8, "alone it has the whole batch"
        few = submit(engine, Run("ann", 2, 12))
        gate.advance(2)  # one stood before the gate already
        before = len(gate.steps)
        gate.advance(11)
        assert few.wait().samples
        assert max(len(step) for step in gate.steps[before : before + 10]) == 3
        gate.open()
        for run in flood:
            assert len(run.wait().samples) == 8, "and is served in the end"


def test_rows_that_pause_come_out_the_same(gate: GatedDenoiser) -> None:
    run = Run("mallory", 3, 60, "ddpm", seed=4)
    with running(gate, cost=GivenCost(0.0)) as engine:
        submit(engine, run)
        gate.advance(2)
        submit(engine, Run("ann", 1, 9))
        gate.open()
        run.wait()
    assert any(len(step) == 1 for step in gate.steps[3:12]), "it did pause"
    run.assert_as_alone(gate)
