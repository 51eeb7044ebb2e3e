"""First messages are read a few at a time, and whoever sends nothing keeps nobody out."""

from __future__ import annotations

import asyncio

import pytest
from papa_serving.contracts.errors import Overloaded
from papa_serving.gateway.rpc.admission import Arrivals, Owner, Readings

from tests.gateway.support.service import eventually

MALLORY, ALICE = ("connection", "mallory"), ("connection", "alice")


class Calls:
    """Calls whose message never comes; `reading` counts those that have a turn."""

    def __init__(self, limit: int) -> None:
        self.readings, self.arrivals, self.reading = Readings(limit), Arrivals(100, 60.0), 0

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
    calls = Calls(2)
    silent = [asyncio.create_task(calls.silent(MALLORY)) for _ in range(6)]
    await eventually(lambda: calls.reading == 2)
    await calls.speaks(ALICE)
    assert calls.reading == 2
    assert not [each for each in silent if each.done()]
    for each in silent:
        each.cancel()
    await asyncio.gather(*silent, return_exceptions=True)
    await calls.speaks(MALLORY)


async def test_a_turn_without_a_message_ends_while_others_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Readings, "PATIENCE", 0.02)
    calls = Calls(2)
    silent = [asyncio.create_task(calls.silent(MALLORY)) for _ in range(5)]
    await eventually(lambda: sum(each.done() for each in silent) == 3)
    assert {type(each.exception()) for each in silent if each.done()} == {Overloaded}
    assert calls.reading == 2, "nobody waits for those any more"
    await asyncio.wait_for(calls.speaks(MALLORY), 10)
    for each in silent:
        each.cancel()
    await asyncio.gather(*silent, return_exceptions=True)
