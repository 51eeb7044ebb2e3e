"""The decision alone: random histories keep its promises, and a modelled queue settles."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
from hypothesis import assume, given
from hypothesis import settings as testing
from hypothesis import strategies as st
from papa_serving.settings import Settings
from papa_serving.trainer.deployment import reconfigured
from papa_serving.trainer.loop import BusyTime
from papa_serving.trainer.scaling import STEP, Limits, Load, Scaling, decide, limits

LIMITS = Limits(least=1, most=12, target_age=15.0, upscale_delay=10.0, downscale_delay=60.0)

loads = st.builds(Load, st.floats(0, 1_000), st.floats(0, 12), st.booleans())
histories = st.lists(st.tuples(st.floats(0.1, 40), loads), max_size=80)
starts = st.integers(LIMITS.least, LIMITS.most)


def course(start: int, history: list[tuple[float, Load]]) -> Iterator[tuple[float, Load, int, int]]:
    """Each step's time, load, and number of trainers before and after."""
    state, now = Scaling(start), 0.0
    for pause, load in history:
        now += pause
        before, state = state.desired, decide(state, load, now, LIMITS)
        yield now, load, before, state.desired


@testing(deadline=None)
@given(starts, histories)
def test_it_stays_within_limits_and_takes_bounded_steps(start: int, history: list[tuple[float, Load]]) -> None:
    for _, _, before, after in course(start, history):
        assert LIMITS.least <= after <= LIMITS.most
        assert before - 1 <= after <= math.ceil(STEP * before)


@testing(deadline=None)
@given(starts, histories)
def test_a_change_follows_the_last_one_after_its_delay(start: int, history: list[tuple[float, Load]]) -> None:
    changed = 0.0
    for now, _, before, after in course(start, history):
        if after != before:
            assert now - changed >= (LIMITS.upscale_delay if after > before else LIMITS.downscale_delay)
            changed = now


@testing(deadline=None)
@given(starts, histories)
def test_it_changes_only_beyond_the_thresholds_and_when_all_have_answered(
    start: int, history: list[tuple[float, Load]]
) -> None:
    for _, load, before, after in course(start, history):
        if after > before:
            assert load.complete and load.oldest_age > LIMITS.target_age
        if after < before:
            assert load.complete and load.oldest_age <= LIMITS.target_age / 2


@testing(deadline=None)
@given(starts, st.floats(15.1, 1_000))
def test_a_backlog_that_does_not_shrink_takes_every_trainer(start: int, age: float) -> None:
    assert [*course(start, [(2.0, Load(age, 12.0, True))] * 100)][-1][-1] == LIMITS.most


@testing(deadline=None)
@given(starts)
def test_idleness_ends_with_the_least(start: int) -> None:
    assert [*course(start, [(2.0, Load(0.0, 0.0, True))] * 500)][-1][-1] == LIMITS.least


@testing(deadline=None)
@given(st.integers(2, 12), st.floats(0.75, 1.0))
def test_trainers_that_are_busy_are_not_taken_away_from_a_young_backlog(start: int, busy: float) -> None:
    assert {after for *_, after in course(start, [(2.0, Load(1.0, busy * start, True))] * 200)} == {start}


def test_a_backlog_that_is_being_worked_off_takes_no_more() -> None:
    falling = [(2.0, Load(200.0 - 5 * number, 3.0, True)) for number in range(40)]
    slowly = [(2.0, Load(200.0 - number, 3.0, True)) for number in range(40)]
    assert {after for *_, after in course(3, falling)} == {3}
    assert {after for *_, after in course(3, slowly)} > {3}


@testing(deadline=None, max_examples=30)
@given(st.floats(0.3, 10), st.integers(1, 12))
def test_a_modelled_queue_settles_at_a_number_that_keeps_up(rate: float, start: int) -> None:
    """`rate` seconds of training arrive in a second. After an hour and a half the number stays, and is enough.

    A number that falls short by less than a twentieth of a trainer is enough for longer than that: so slowly does its
    backlog age.
    """
    assume(not 0 < rate % 1 < 0.05)
    state, queue, numbers = Scaling(start), 0.0, []
    for second in range(0, 7_200, 2):
        room = 2.0 * state.desired
        trained = min(room, queue + 2.0 * rate)
        queue += 2.0 * rate - trained
        state = decide(state, Load(1.0 + queue / rate, trained / 2.0, True), float(second), LIMITS)
        numbers.append(state.desired)
    last = set(numbers[-900:])
    assert len(last) == 1
    assert last.pop() >= rate
    assert queue < LIMITS.target_age * rate


def test_limits_come_from_the_settings() -> None:
    settings = Settings(feedback={"partitions": 5}, trainer={"actors": 2, "autoscaling": {"max_actors": 9}})
    assert (limits(settings).least, limits(settings).most) == (2, 5)
    fixed = limits(Settings(trainer={"actors": 3}))
    assert (fixed.least, fixed.most) == (3, 3)
    assert decide(Scaling(3), Load(1e6, 3.0, True), 1e6, fixed).desired == 3


def test_when_to_scale_can_be_changed_while_trainers_run() -> None:
    settings = Settings(trainer={"autoscaling": {"max_actors": 9, "target_age": 7.0}})
    changed = limits(reconfigured(settings, {"upscale_delay": 1.0}))
    assert (changed.most, changed.target_age, changed.upscale_delay) == (9, 7.0, 1.0)
    with pytest.raises(ValueError, match="max_actors"):
        reconfigured(settings, {"max_actors": 3})
    with pytest.raises(ValueError, match="target_age"):
        reconfigured(settings, {"target_age": 0})


def test_the_share_of_time_counts_work_under_way_once() -> None:
    now = [0.0]
    busy = BusyTime(lambda: now[0])
    now[0] = 1.0
    with busy:
        now[0] = 2.0
        assert busy.share() == 0.5
        now[0] = 4.0
        assert busy.share() == 1.0
        now[0] = 5.0
    now[0] = 6.0
    assert busy.share() == 0.5
    now[0] = 8.0
    assert busy.share() == 0.0
