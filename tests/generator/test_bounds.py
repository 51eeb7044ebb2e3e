"""The queue's bound, and rows that are given up."""

from __future__ import annotations

import pytest
from papa_serving.contracts.errors import QueueFull
from papa_serving.contracts.identity import UserKey
from papa_serving.generator.scheduling.cost import LONGEST_WAIT, SHORTEST_WAIT, Throughput

from tests.generator.support import GatedDenoiser, Run, random_weights, running, submit

CAT = UserKey("tenant", "cat")


def test_full_queue_refuses_and_says_when_to_come_back(gate: GatedDenoiser) -> None:
    with running(gate, max_rows=2, max_queued_rows=4) as engine:
        first = submit(engine, Run("ann", 2, 50))
        gate.advance(3)
        submit(engine, Run("bob", 3, 50))
        with pytest.raises(QueueFull) as refusal:
            engine.inbox.reserve(CAT, 2, 50)
        assert SHORTEST_WAIT <= (refusal.value.retry_after or 0) <= LONGEST_WAIT
        engine.inbox.reserve(CAT, 1, 50)
        engine.inbox.release(CAT, 1)
        gate.open()
        first.wait()


def test_empty_queue_takes_more_than_its_bound(gate: GatedDenoiser) -> None:
    with running(gate, max_rows=2, max_queued_rows=4) as engine:
        large = submit(engine, Run("ann", 9, 2))
        gate.open()
        assert large.wait().error is None


def test_room_comes_back_when_rows_are_admitted_or_cancelled(gate: GatedDenoiser) -> None:
    with running(gate, max_rows=2, max_queued_rows=4) as engine:
        submit(engine, Run("ann", 2, 50))
        gate.advance()
        for _ in range(3):
            waiting = submit(engine, Run("bob", 4, 50))
            gate.advance()
            with pytest.raises(QueueFull):
                engine.inbox.reserve(CAT, 4, 50)
            engine.inbox.cancel(waiting.job)
            gate.advance()


def test_cancelled_rows_are_free_at_the_next_step(gate: GatedDenoiser) -> None:
    with running(gate, slots=1) as engine:
        given_up = submit(engine, Run("ann", 5, 500, weights=random_weights(gate, 1)))
        gate.advance(2)
        stays = submit(engine, Run("bob", 2, 6))
        gate.advance(2)
        engine.inbox.cancel(given_up.job)
        gate.advance(2)
        assert len(gate.steps[-1]) == 2
        after = submit(engine, Run("cat", 1, 2, weights=random_weights(gate, 2)))
        gate.open()
        assert stays.wait().error is None
        assert after.wait().error is None, "its slot was freed as well"
        assert not given_up.samples


def test_cancelling_what_waits_or_is_done_is_harmless(gate: GatedDenoiser) -> None:
    with running(gate, max_rows=1) as engine:
        running_one, waiting = submit(engine, Run("ann", 1, 3)), Run("bob", 2, 3)
        gate.advance()
        submit(engine, waiting)
        engine.inbox.cancel(waiting.job)
        gate.open()
        running_one.wait()
        engine.inbox.cancel(running_one.job)
        assert submit(engine, Run("cat", 1, 2)).wait().error is None
    assert not waiting.samples


def test_throughput_is_that_of_the_last_steps() -> None:
    throughput = Throughput()
    assert throughput.seconds(1_000_000) == 1.0
    for _ in range(200):
        throughput.record(rows=8, seconds=80.0)
    for _ in range(200):
        throughput.record(rows=8, seconds=0.8)
    assert throughput.seconds(100) == pytest.approx(10.0, rel=0.05)
    assert throughput.seconds(0) == SHORTEST_WAIT
    assert throughput.seconds(10**9) == LONGEST_WAIT


def test_one_users_flood_leaves_room_in_the_queue(gate: GatedDenoiser) -> None:
    with running(gate, max_rows=1, max_queued_rows=16) as engine:
        submit(engine, Run("ann", 1, 1000))
        gate.advance()
        taken = 0
        with pytest.raises(QueueFull, match="8 of them this user's"):
            while True:
                submit(engine, Run("mallory", 1, 50, seed=taken))
                taken += 1
        assert taken == 8
        submit(engine, Run("cat", 4, 50))
        submit(engine, Run("dan", 2, 50))
