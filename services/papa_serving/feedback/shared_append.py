"""Calls that come while an append is under way share the next one: many callers, one round trip."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from papa_serving.contracts.errors import PapaError, StorageUnavailable
from papa_serving.contracts.feedback import AppendResult, FeedbackEvent

Append = Callable[[Sequence[FeedbackEvent]], Awaitable[list[AppendResult]]]

EVENTS_PER_ROUND = 256
"""A call that brings as many goes by itself, and so many at most share a round: nobody waits long for others."""


@dataclass(eq=False)
class _Call:
    """One caller's events, and where the answer is awaited."""

    events: Sequence[FeedbackEvent]
    answer: asyncio.Future[list[AppendResult]]


class SharedAppend:
    """One round at a time, in the order in which the calls came. Belongs to one event loop.

    A caller that is cancelled leaves its events in the round, as a lost reply would.
    """

    def __init__(self, append: Append) -> None:
        self._append = append
        self._waiting: deque[_Call] = deque()
        self._rounds: asyncio.Task[None] | None = None

    async def append(self, events: Sequence[FeedbackEvent]) -> list[AppendResult]:
        """As FeedbackLog.append."""
        if len(events) >= EVENTS_PER_ROUND:
            return await self._append(events)
        call = _Call(events, asyncio.get_running_loop().create_future())
        self._waiting.append(call)
        if self._rounds is None:
            self._rounds = asyncio.create_task(self._work())
        return await call.answer

    async def _work(self) -> None:
        calls: list[_Call] = []
        try:
            while calls := self._next():
                await self._round(calls)
        finally:
            self._rounds = None
            for call in (*calls, *self._waiting):
                call.answer.cancel()
            self._waiting.clear()

    def _next(self) -> list[_Call]:
        calls: list[_Call] = []
        size = 0
        while self._waiting and (not calls or size + len(self._waiting[0].events) <= EVENTS_PER_ROUND):
            calls.append(self._waiting.popleft())
            size += len(calls[-1].events)
        return calls

    async def _round(self, calls: Sequence[_Call]) -> None:
        try:
            results = iter(await self._append([event for call in calls for event in call.events]))
        except Exception as error:
            if len(calls) > 1 and not isinstance(error, PapaError):
                # What one of them brought is at fault; sending the others' again is harmless.
                for call in calls:
                    await self._round([call])
                return
            for call in calls:
                _tell(call, error)
            return
        for call in calls:
            _tell(call, [next(results) for _ in call.events])


def _tell(call: _Call, outcome: list[AppendResult] | Exception) -> None:
    """Each caller's own results, or an exception where nothing is known of the whole call."""
    if call.answer.done():
        return
    if isinstance(outcome, Exception):
        call.answer.set_exception(outcome)
        return
    errors = [result.error for result in outcome]
    if errors and all(isinstance(error, StorageUnavailable) for error in errors):
        assert errors[0] is not None
        call.answer.set_exception(errors[0])
        return
    call.answer.set_result(outcome)
