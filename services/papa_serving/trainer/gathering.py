"""Holds the events of one owned partition in memory, per user and in order, until a revision applies them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import islice, takewhile

from papa_serving.contracts.feedback import Lease, LoggedEvent, UserBatch
from papa_serving.contracts.identity import UserKey
from papa_serving.settings import TrainerSettings

ALONE_FROM = 2
"""Failures after which an event is trained on alone, so that a further failure is its own."""


@dataclass(frozen=True)
class Held:
    """One event that arrived at `arrival` (monotonic).

    `refusals` counts its refusals by the gate in this process, and `reason` says why its last attempt failed.
    """

    event: LoggedEvent
    arrival: float
    refusals: int = 0
    reason: str = ""


@dataclass
class Waiting:
    """One user's events in order. No attempt is made before `not_before` (monotonic)."""

    held: deque[Held] = field(default_factory=deque)
    not_before: float = 0.0


@dataclass(frozen=True)
class Ready:
    """The events that one update of one user would consume, waiting since `since` (monotonic).

    `failures` attempts at them have failed before, `refusals` of these at the gate. `reason` says why the last one
    failed, if that was in this process.
    """

    batch: UserBatch
    since: float
    failures: int
    refusals: int
    reason: str


class Gathering:
    """The events that were read under one lease. A new lease starts a new gathering, because the log is authoritative.

    `attempts` of an event counts the attempts that are known to have failed, in an earlier process or in this one
    (`failed`). An attempt that ended for another reason (a rollback, a full store) does not count against the event.
    `counted` then remembers that the log has counted it already.
    """

    def __init__(self, lease: Lease) -> None:
        self.lease = lease
        self.cursor = ""
        self.counted: set[str] = set()
        self._users: dict[UserKey, Waiting] = {}

    def __len__(self) -> int:
        return sum(len(waiting.held) for waiting in self._users.values())

    def add(self, events: Iterable[LoggedEvent], now: float) -> None:
        """Adds events in the log's order. `now` is monotonic, as everywhere in this class."""
        for event in events:
            self._users.setdefault(event.user, Waiting()).held.append(Held(event, now))

    def ready(self, settings: TrainerSettings, now: float, clock: float) -> list[Ready]:
        """Users with enough labels, with a label that has waited long enough, or with a failed attempt to repeat.

        A label's wait is the longer of two times: since it arrived here, by the monotonic clock, and since Redis
        accepted it, by the wall clock (`clock` is the present time of this machine).
        """
        return [
            self._next(user, waiting, settings)
            for user, waiting in self._users.items()
            if waiting.not_before <= now and _is_ready(waiting, settings, now, clock)
        ]

    def done(self, batch: UserBatch) -> None:
        """Forgets a batch that was applied or buried."""
        waiting = self._users.get(batch.user, Waiting())
        for event in batch.events:
            self.counted.discard(event.entry_id)
            if waiting.held and waiting.held[0].event.entry_id == event.entry_id:
                waiting.held.popleft()
        if not waiting.held:
            self._users.pop(batch.user, None)

    def failed(self, batch: UserBatch, reason: str, *, refused: bool = False) -> None:
        """Counts a failed attempt against the events of the batch."""
        held = self._users.get(batch.user, Waiting()).held
        for index in range(min(len(held), len(batch.events))):
            event, refusals = held[index].event, held[index].refusals
            self.counted.discard(event.entry_id)
            failed = replace(event, attempts=event.attempts + 1)
            held[index] = replace(held[index], event=failed, refusals=refusals + refused, reason=reason)

    def postpone(self, user: UserKey, until: float) -> None:
        """Makes no attempt for the user until then. This does not count as an attempt."""
        if user in self._users:
            self._users[user].not_before = until

    def drop(self, user: UserKey) -> None:
        """Forgets a user whose events the log has removed, or whose events will be read again."""
        for held in self._users.pop(user, Waiting()).held:
            self.counted.discard(held.event.entry_id)

    def _next(self, user: UserKey, waiting: Waiting, settings: TrainerSettings) -> Ready:
        """The leading events that have failed equally often; one event alone from ALONE_FROM failures on."""
        first = waiting.held[0]
        failures = first.event.attempts
        longest = settings.max_labels if failures < ALONE_FROM else 1
        alike = takewhile(lambda held: held.event.attempts == failures, waiting.held)
        batch = UserBatch(user, tuple(held.event for held in islice(alike, longest)))
        return Ready(batch, first.arrival, failures, first.refusals, first.reason)


def _is_ready(waiting: Waiting, settings: TrainerSettings, now: float, clock: float) -> bool:
    oldest = waiting.held[0]
    wait = max(now - oldest.arrival, clock - oldest.event.accepted_at)
    return oldest.event.attempts > 0 or len(waiting.held) >= settings.min_labels or wait >= settings.max_wait
