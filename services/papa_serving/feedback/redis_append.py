"""Appends many events in few round trips: one script call per partition, all in one pipeline.

Calls that arrive during an append share the next one, so many callers cost one round trip.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from redis.exceptions import NoScriptError, RedisError

from papa_serving import metrics
from papa_serving.contracts.errors import PapaError, StorageUnavailable
from papa_serving.contracts.feedback import AppendResult, FeedbackEvent
from papa_serving.contracts.identity import UserKey
from papa_serving.feedback.entries import (
    ACCEPTED,
    DUPLICATE,
    NOTED,
    NOTED_BEFORE,
    USER_FULL,
    needs_item,
    pack_events,
    refusal,
)
from papa_serving.store.redis_client import Argument, Client, call_all, unavailable
from papa_serving.store.redis_keys import GROUP, Keys, PartitionKeys, UserKeys
from papa_serving.store.redis_scripts import load

EVENTS_PER_CALL = 256
"""Events in one script call. It takes a few milliseconds, during which Redis is blocked."""

EVENTS_PER_ROUND = 256
"""The most events that share a round, so that nobody waits long for others. A call with as many is sent alone."""

Append = Callable[[Sequence[FeedbackEvent]], Awaitable[list[AppendResult]]]

_APPEND = load(__package__, "append", bytes)


@dataclass(frozen=True)
class Bounds:
    """Unapplied events of a partition, and of each user how many event ids and attributed events are kept; times to
    live in ms."""

    backlog: int
    ttl: int
    ids: int
    attributed: int
    attributed_ttl: int


class _ScriptCall:
    """One call of the script: some events of one partition, gathered by user."""

    def __init__(self, partition: PartitionKeys) -> None:
        self._partition = partition
        self._runs: dict[UserKey, tuple[UserKeys, list[int]]] = {}
        self._size = 0

    @property
    def full(self) -> bool:
        return self._size >= EVENTS_PER_CALL

    def add(self, index: int, user: UserKey, keys: UserKeys) -> None:
        self._runs.setdefault(user, (keys, []))[1].append(index)
        self._size += 1

    def indices(self) -> Iterator[int]:
        """Indices into the caller's list, in the order of the script's answers."""
        return (index for _, indices in self._runs.values() for index in indices)

    def keys_and_arguments(self, events: Sequence[FeedbackEvent], bounds: Bounds) -> tuple[list[str], list[Argument]]:
        """The keys and arguments of append.lua."""
        keys: list[str] = [self._partition.events, self._partition.dead, self._partition.users]
        arguments: list[Argument] = [bounds.backlog, bounds.ttl, GROUP, bounds.ids]
        arguments += [bounds.attributed, bounds.attributed_ttl]
        for user, (own, indices) in self._runs.items():
            keys += (own.state, own.pending, own.letters, own.ids, own.older_ids, own.attributed)
            keys += (own.noted_ids, own.older_noted_ids)
            of_user = [events[index] for index in indices]
            keys += [own.item(event.item_id) for event in of_user if needs_item(event)]
            arguments += (user.tenant, user.user, len(of_user), pack_events(of_user))
        return keys, arguments


class Appender:
    """Appends lists of events. A list has one call in flight per partition, which keeps the order of each user."""

    def __init__(self, client: Client, keys: Keys, bounds: Bounds) -> None:
        self._client = client
        self._keys = keys
        self._bounds = bounds

    async def append(self, events: Sequence[FeedbackEvent]) -> list[AppendResult]:
        """Like FeedbackLog.append. If Redis refused only some partitions, their results contain StorageUnavailable."""
        results: list[AppendResult | None] = [None] * len(events)
        failures: list[PapaError] = []
        for calls in self._rounds(events):
            for call, reply in zip(calls, await self._send(calls, events), strict=True):
                if isinstance(reply, RedisError):
                    failures.append(unavailable(reply))
                for index, result in _results(call, reply, events):
                    results[index] = result
        done = [result for result in results if result is not None]
        if failures and all(isinstance(result.error, StorageUnavailable) for result in done):
            raise failures[0]
        return done

    def _rounds(self, events: Sequence[FeedbackEvent]) -> Iterator[list[_ScriptCall]]:
        """Yields rounds. Round k has the k-th call of each partition."""
        calls: dict[PartitionKeys, list[_ScriptCall]] = {}
        known: dict[UserKey, UserKeys] = {}
        for index, event in enumerate(events):
            keys = known.get(event.user) or known.setdefault(event.user, self._keys.user(event.user))
            of_partition = calls.setdefault(keys.partition, [_ScriptCall(keys.partition)])
            if of_partition[-1].full:
                of_partition.append(_ScriptCall(keys.partition))
            of_partition[-1].add(index, event.user, keys)
        for column in zip_longest(*calls.values()):
            yield [call for call in column if call is not None]

    async def _send(self, calls: Sequence[_ScriptCall], events: Sequence[FeedbackEvent]) -> list[bytes | RedisError]:
        """Returns the script's replies, or errors for refused calls."""
        wanted = [call.keys_and_arguments(events, self._bounds) for call in calls]
        replies = await call_all(self._client, [_APPEND.by_sha1(*call) for call in wanted])
        unknown = [number for number, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if unknown:
            again = await call_all(self._client, [_APPEND.in_full(*wanted[number]) for number in unknown])
            for number, reply in zip(unknown, again, strict=True):
                replies[number] = reply
        return replies


def _results(
    call: _ScriptCall, reply: bytes | RedisError, events: Sequence[FeedbackEvent]
) -> Iterator[tuple[int, AppendResult]]:
    if isinstance(reply, RedisError):
        error = unavailable(reply)
        yield from ((index, AppendResult(events[index].event_id, error=error)) for index in call.indices())
        return
    *numbers, forgotten = [int(number) for number in reply.split()]
    # Read wholly before anything is believed: an answer of another length acknowledges nothing.
    outcomes = list(zip(call.indices(), numbers[::2], numbers[1::2], strict=True))
    metrics.QUOTA_EFFECTS.labels("event_ids", "removed").inc(forgotten)
    metrics.QUOTA_EFFECTS.labels("pending_events", "refused").inc(sum(code == USER_FULL for _, code, _ in outcomes))
    for index, code, sequence in outcomes:
        event_id = events[index].event_id
        if code in (ACCEPTED, DUPLICATE, NOTED, NOTED_BEFORE):
            duplicate, item_gone = code in (DUPLICATE, NOTED_BEFORE), code in (NOTED, NOTED_BEFORE)
            yield index, AppendResult(event_id, sequence, duplicate, item_gone=item_gone)
        else:
            yield index, AppendResult(event_id, error=refusal(code, events[index]))


@dataclass(eq=False)
class _Waiting:
    """One caller's events, and the future of their results."""

    events: Sequence[FeedbackEvent]
    answer: asyncio.Future[list[AppendResult]]


class SharedAppend:
    """Collects calls into rounds and runs them one at a time, in order of arrival. Belongs to one event loop.

    The events of a cancelled caller stay in the round, as after a lost reply.
    """

    def __init__(self, append: Append) -> None:
        self._append = append
        self._waiting: deque[_Waiting] = deque()
        self._rounds: asyncio.Task[None] | None = None

    async def append(self, events: Sequence[FeedbackEvent]) -> list[AppendResult]:
        """Like FeedbackLog.append."""
        if len(events) >= EVENTS_PER_ROUND:
            return await self._append(events)
        call = _Waiting(events, asyncio.get_running_loop().create_future())
        self._waiting.append(call)
        if self._rounds is None:
            self._rounds = asyncio.create_task(self._work())
        return await call.answer

    async def _work(self) -> None:
        calls: list[_Waiting] = []
        try:
            while calls := self._next():
                await self._round(calls)
        finally:
            self._rounds = None
            for call in (*calls, *self._waiting):
                call.answer.cancel()
            self._waiting.clear()

    def _next(self) -> list[_Waiting]:
        calls: list[_Waiting] = []
        size = 0
        while self._waiting and (not calls or size + len(self._waiting[0].events) <= EVENTS_PER_ROUND):
            calls.append(self._waiting.popleft())
            size += len(calls[-1].events)
        return calls

    async def _round(self, calls: Sequence[_Waiting]) -> None:
        try:
            results = iter(await self._append([event for call in calls for event in call.events]))
        except Exception as error:
            if len(calls) > 1 and not isinstance(error, PapaError):
                # One call's events are at fault. Sending those of the others again is harmless.
                for call in calls:
                    await self._round([call])
                return
            for call in calls:
                _tell(call, error)
            return
        for call in calls:
            _tell(call, [next(results) for _ in call.events])


def _tell(call: _Waiting, outcome: list[AppendResult] | Exception) -> None:
    """Gives each caller its results, or an exception if the outcome of its call is unknown."""
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
