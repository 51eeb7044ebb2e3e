"""Callers that append at the same time share round trips, and none answers for another."""

from __future__ import annotations

import asyncio

import pytest
from papa_serving.contracts.errors import ItemNotFound, StorageUnavailable
from papa_serving.contracts.feedback import AppendResult, FeedbackEvent
from papa_serving.contracts.identity import UserKey
from papa_serving.feedback.redis_append import EVENTS_PER_ROUND, SharedAppend

USER = UserKey("tenant", "user")


def event(name: str) -> FeedbackEvent:
    return FeedbackEvent(name, USER, 1.0, item_id="item")


class Log:
    """Appends when it is let, and remembers what came in one call."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.open = asyncio.Event()
        self.failure: Exception | None = None

    async def append(self, events):
        self.calls.append([each.event_id for each in events])
        await self.open.wait()
        if self.failure is not None:
            raise self.failure
        if any(each.event_id == "poison" for each in events):
            raise UnicodeError("cannot be encoded")
        return [self._result(index, each.event_id) for index, each in enumerate(events)]

    def _result(self, index: int, name: str) -> AppendResult:
        if name == "no item":
            return AppendResult(name, error=ItemNotFound("no such item"))
        if name.startswith("down"):
            return AppendResult(name, error=StorageUnavailable("down", retry_after=1.0))
        return AppendResult(name, sequence=index + 1)


async def together(log: Log, *names: list[str]):
    """All of them while a first call is under way; what each got."""
    shared = SharedAppend(log.append)
    first = asyncio.create_task(shared.append([event("first")]))
    await asyncio.sleep(0)
    others = [asyncio.create_task(shared.append([event(name) for name in each])) for each in names]
    await asyncio.sleep(0)
    log.open.set()
    assert [result.event_id for result in await first] == ["first"]
    return await asyncio.gather(*others, return_exceptions=True)


async def test_those_who_came_meanwhile_share_the_next_call_in_order():
    log = Log()
    answers = await together(log, ["a", "b"], ["c"])
    assert log.calls == [["first"], ["a", "b", "c"]]
    assert [[result.event_id for result in answer] for answer in answers] == [["a", "b"], ["c"]]


async def test_a_lone_call_goes_at_once():
    log = Log()
    log.open.set()
    shared = SharedAppend(log.append)
    for name in ("a", "b"):
        assert (await shared.append([event(name)]))[0].sequence == 1
    assert log.calls == [["a"], ["b"]]


async def test_refused_events_are_their_callers_own():
    answers = await together(Log(), ["no item"], ["a"], ["down 1"], ["down 2", "b"])
    assert isinstance(answers[0][0].error, ItemNotFound)
    assert answers[1][0].error is None
    assert isinstance(answers[2], StorageUnavailable), "nothing is known of the whole call"
    assert [result.error is None for result in answers[3]] == [False, True]


async def test_a_storage_that_fails_fails_everybody_in_the_round():
    log = Log()
    log.failure = StorageUnavailable("down", retry_after=1.0)
    shared = SharedAppend(log.append)
    log.open.set()
    answers = await asyncio.gather(*(shared.append([event(name)]) for name in "abc"), return_exceptions=True)
    assert [type(answer) for answer in answers] == [StorageUnavailable] * 3
    log.failure = None
    assert (await shared.append([event("d")]))[0].error is None


async def test_events_that_cannot_be_sent_fail_their_caller_alone():
    answers = await together(Log(), ["a"], ["poison"], ["b"])
    assert isinstance(answers[1], UnicodeError)
    assert [answers[index][0].event_id for index in (0, 2)] == ["a", "b"]


async def test_rounds_are_bounded_and_a_large_call_waits_for_nobody():
    log = Log()
    shared = SharedAppend(log.append)
    half = [f"h{number}" for number in range(EVENTS_PER_ROUND // 2)]
    tasks = [asyncio.create_task(shared.append([event("first")]))]
    await asyncio.sleep(0)
    tasks += [asyncio.create_task(shared.append([event(f"{name}{caller}") for name in half])) for caller in range(3)]
    large = [event(f"l{number}") for number in range(EVENTS_PER_ROUND)]
    tasks.append(asyncio.create_task(shared.append(large)))
    await asyncio.sleep(0)
    assert [len(call) for call in log.calls] == [1, EVENTS_PER_ROUND], "the large one is under way beside the first"
    log.open.set()
    await asyncio.gather(*tasks)
    assert [len(call) for call in log.calls] == [1, EVENTS_PER_ROUND, EVENTS_PER_ROUND, EVENTS_PER_ROUND // 2]


async def test_a_caller_that_goes_away_takes_nobody_along():
    log = Log()
    shared = SharedAppend(log.append)
    gone, stays = (asyncio.create_task(shared.append([event(name)])) for name in "ab")
    await asyncio.sleep(0)
    gone.cancel()
    log.open.set()
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert (await stays)[0].error is None
