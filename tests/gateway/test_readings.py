"""First messages are read a few at a time, and whoever sends nothing keeps nobody out."""

from __future__ import annotations

import asyncio

import pytest
from papa_serving.contracts.errors import Overloaded
from papa_serving.gateway.rpc.admission import Arrivals, Owner, Readings

from tests.gateway.support.service import eventually

MALLORY, ALICE = ("connection", "mallory"), ("connection", "alice")
QUARTER = 2
MOST = 4 * QUARTER


class Calls:
    """Calls whose message never comes; `reading` counts those that have a turn."""

    def __init__(self) -> None:
        self.readings, self.arrivals, self.reading = Readings(MOST), Arrivals(1_000, 60.0), 0

    async def silent(self, owner: Owner) -> None:
        async with self.arrivals.arrival(owner) as arrival, self.readings.turn(arrival):
            self.reading += 1
            try:
                await asyncio.Event().wait()
            finally:
                self.reading -= 1

    async def speaks(self, owner: Owner) -> None:
        async with self.arrivals.arrival(owner) as arrival, self.readings.turn(arrival):
            await asyncio.sleep(0)


async def test_one_owner_has_a_few_turns_and_another_need_not_wait() -> None:
    calls = Calls()
    silent = [asyncio.create_task(calls.silent(MALLORY)) for _ in range(6)]
    await eventually(lambda: calls.reading == 2)
    await calls.speaks(ALICE)
    assert calls.reading == 2
    assert not [each for each in silent if each.done()]
    await ended(silent)
    assert (calls.readings.taken, calls.readings.waiting) == (0, 0)


async def ended(calls: list[asyncio.Task[None]]) -> None:
    """Cancels them all at once, as a connection does that is closed."""
    for each in calls:
        each.cancel()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(each) for each in outcomes} <= {asyncio.CancelledError, Overloaded}


async def test_calls_that_are_cancelled_together_take_no_turn_along() -> None:
    calls = Calls()
    for _ in range(10):
        silent = [asyncio.create_task(calls.silent(MALLORY)) for _ in range(40)]
        others = [asyncio.create_task(calls.silent(ALICE)) for _ in range(40)]
        await eventually(lambda: calls.reading == 2 * QUARTER)
        await ended(silent)
        await ended(others)
        assert (calls.readings.taken, calls.readings.waiting) == (0, 0)
    await calls.speaks(MALLORY)


async def test_a_turn_passes_to_a_call_that_still_waits_not_to_one_cancelled_in_the_same_moment() -> None:
    calls = Calls()
    silent = [asyncio.create_task(calls.silent(MALLORY)) for _ in range(QUARTER + 3)]
    await eventually(lambda: calls.readings.waiting == 3)
    first_waiting, second_waiting = silent[QUARTER], silent[QUARTER + 1]
    silent[0].cancel()
    first_waiting.cancel()
    second_waiting.cancel()
    await asyncio.gather(silent[0], first_waiting, second_waiting, return_exceptions=True)
    await eventually(lambda: calls.reading == QUARTER)
    assert calls.readings.waiting == 0
    await ended(silent)


async def test_all_users_of_a_tenant_together_keep_no_other_tenant_out() -> None:
    calls = Calls()
    users = [("identity", "shop", f"user{number}") for number in range(100)]
    silent = [asyncio.create_task(calls.silent(user)) for user in users]
    await eventually(lambda: calls.readings.waiting == 100 - QUARTER)
    await asyncio.wait_for(calls.speaks(("identity", "other", "alice")), 10)
    assert calls.reading == QUARTER
    await ended(silent)


async def test_the_next_turn_is_of_the_user_with_the_fewest() -> None:
    calls, order = Calls(), list[str]()
    mallory, alice = ("identity", "shop", "mallory"), ("identity", "shop", "alice")
    silent = [asyncio.create_task(calls.silent(mallory)) for _ in range(50)]
    await eventually(lambda: calls.readings.waiting == 50 - QUARTER)

    async def asks() -> None:
        await calls.speaks(alice)
        order.append("alice")

    asking = asyncio.create_task(asks())
    await eventually(lambda: calls.readings.waiting == 51 - QUARTER)
    silent[0].cancel()
    await asyncio.wait_for(asking, 10)
    assert order == ["alice"]
    await ended(silent)


async def test_a_turn_without_a_message_ends_while_others_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Readings, "PATIENCE", 0.02)
    calls = Calls()
    silent = [asyncio.create_task(calls.silent(MALLORY)) for _ in range(5)]
    await eventually(lambda: sum(each.done() for each in silent) == 3)
    assert {type(each.exception()) for each in silent if each.done()} == {Overloaded}
    await eventually(lambda: calls.reading == 2)  # nobody waits for those any more
    await asyncio.wait_for(calls.speaks(MALLORY), 10)
    await ended(silent)


def test_less_than_one_turn_is_refused() -> None:
    with pytest.raises(ValueError, match="too few"):
        Readings(0)
