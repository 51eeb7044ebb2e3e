"""Who gets a row of the batch: nobody waits for another's many rows or long ones, and no row is lost or run twice."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from papa_serving.contracts.identity import UserKey
from papa_serving.generator.job import Job, Row
from papa_serving.generator.scheduling.fairness import QUANTUM
from papa_serving.generator.scheduling.scheduler import FairQueue

from tests.generator.support import GatedDenoiser, Run, random_weights, running, submit


def rows_of(name: str, count: int, steps: int = 10) -> list[Row]:
    job = Job(UserKey("tenant", name), count, 0, "ddim", steps, deliver=lambda _result: None)
    return job.rows(tuple(range(steps, 0, -1)))


def users_of(rows: list[Row]) -> Counter[str]:
    return Counter(row.job.user.user for row in rows)


def always(_row: Row) -> bool:
    return True


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 9)), min_size=1, max_size=8), st.integers(1, 12))
def test_rows_are_shared_equally(asked: list[tuple[str, int]], rows: int) -> None:
    queue, waiting = FairQueue(), Counter[str]()
    for name, count in asked:
        queue.push(rows_of(name, count))
        waiting[name] += count
    admitted = queue.admit(rows, [], always)
    got = users_of(admitted)
    assert len(admitted) == len(set(admitted)) == min(rows, sum(waiting.values()))
    assert len(queue) == sum(waiting.values()) - len(admitted)
    hungry = [got[name] for name in waiting if got[name] < waiting[name]]
    assert all(got[name] <= least + 1 for least in hungry for name in waiting)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 9)), min_size=1, max_size=6),
    st.lists(st.tuples(st.sampled_from("cdef"), st.integers(1, 9)), min_size=1, max_size=6),
    st.integers(1, 12),
)
def test_newcomers_get_their_share_of_a_full_batch(
    first: list[tuple[str, int]], second: list[tuple[str, int]], rows: int
) -> None:
    queue, total = FairQueue(), Counter[str]()
    for name, count in first:
        queue.push(rows_of(name, count))
        total[name] += count
    batch = queue.admit(rows, [], always)
    for name, count in second:
        queue.push(rows_of(name, count))
        total[name] += count
    for _ in range(3):
        parked = queue.displaced(batch, rows - len(batch), always)
        batch = [row for row in batch if row not in parked]
        queue.park(parked)
        batch += queue.admit(rows - len(batch), batch, always)
        got = users_of(batch)
        assert len(batch) == min(rows, sum(total.values()))
        hungry = [got[name] for name in total if got[name] < total[name]]
        assert all(got[name] <= least + 1 for least in hungry for name in total)
    assert not queue.displaced(batch, rows - len(batch), always), "shares that are equal are left alone"


def test_who_was_served_longest_ago_is_next() -> None:
    queue = FairQueue()
    for name in "abc":
        queue.push(rows_of(name, 2))
    order = [queue.admit(1, [], always)[0].job.user.user for _ in range(6)]
    assert order == ["a", "b", "c", "a", "b", "c"]


def test_row_without_a_slot_lets_others_pass() -> None:
    queue = FairQueue()
    queue.push(rows_of("a", 2))
    queue.push(rows_of("b", 2))
    admitted = queue.admit(4, [], lambda row: row.job.user.user == "b")
    assert users_of(admitted) == {"b": 2}
    assert users_of(queue.admit(4, [], always)) == {"a": 2}


def test_newcomer_does_not_wait_for_a_full_batch(gate: GatedDenoiser) -> None:
    with running(gate, max_rows=4) as engine:
        many = submit(engine, Run("ann", 8, 200))
        gate.advance(5)
        few = submit(engine, Run("bob", 1, 3))
        gate.advance(5)
        assert few.wait().samples
        assert not many.ended


def test_ones_own_short_generation_does_not_wait_for_the_long_one(gate: GatedDenoiser) -> None:
    with running(gate, max_rows=4) as engine:
        submit(engine, Run("ann", 8, 200))
        gate.advance(5)
        short = submit(engine, Run("ann", 1, 3, seed=50))
        gate.advance(5)
        assert short.wait().samples


def test_more_users_than_rows_take_turns(gate: GatedDenoiser) -> None:
    with running(gate, max_rows=2) as engine:
        for name in ("ann", "bob"):
            submit(engine, Run(name, 1, 1000))
        gate.advance(2)
        short = submit(engine, Run("cat", 1, 3))
        gate.advance(QUANTUM + 6)
        assert short.wait().samples


def test_users_take_turns_at_the_only_slot(gate: GatedDenoiser) -> None:
    with running(gate, slots=1) as engine:
        holder = submit(engine, Run("ann", 2, 1000, weights=random_weights(gate, 1)))
        gate.advance(2)
        waiting = submit(engine, Run("bob", 1, 3, weights=random_weights(gate, 2)))
        plain = submit(engine, Run("cat", 1, 3))
        gate.advance(5)
        assert plain.wait().samples, "what needs no slot does not wait for one"
        assert not waiting.ended
        gate.advance(QUANTUM + 6)
        assert waiting.wait().samples
        assert not holder.ended


def test_who_makes_room_is_not_next_again(gate: GatedDenoiser) -> None:
    with running(gate, slots=1, max_rows=2) as engine:
        submit(engine, Run("ann", 6, 1000, weights=random_weights(gate, 1)))
        gate.advance(2)
        waiting = submit(engine, Run("bob", 1, 3, weights=random_weights(gate, 2)))
        gate.advance(QUANTUM + 8)
        assert waiting.wait().samples
