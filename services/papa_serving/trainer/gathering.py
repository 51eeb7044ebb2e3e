"""Events of one owned partition in memory: per user, in order, until a revision applies them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import islice, takewhile

from papa_serving.contracts.feedback import Lease, LoggedEvent, UserBatch
from papa_serving.contracts.identity import UserKey
from papa_serving.settings import TrainerSettings

ALONE_FROM = 2
"""Failures after which an event is trained on without any other: then the next failure is its own."""


@dataclass(frozen=True)
class Held:
    """One event, here since `arrival` (monotonic). `refusals` counts how often the gate said no to it in this process,
    `reason` is why the last attempt at it failed."""

    event: LoggedEvent
    arrival: float
    refusals: int = 0
    reason: str = ""


@dataclass
class Waiting:
    """One user's events in order. Before `not_before` (monotonic) nothing is tried."""

    held: deque[Held] = field(default_factory=deque)
    not_before: float = 0.0


@dataclass(frozen=True)
class Ready:
    """What one update of one user would consume, waiting `since` (monotonic). `failures` attempts at these events have
    gone wrong before, `refusals` of them at the gate; `reason` says why the last one did, if this process saw it."""

    batch: UserBatch
    since: float
    failures: int
    refusals: int
    reason: str


class Gathering:
    """What a lease has read so far. A new lease starts a new one, since the log alone is the truth.

    An event's `attempts` here are those that are known to have gone wrong: in an earlier process, or in this one
    (`failed`). An attempt that ended for another reason (a rollback came between, the store was full) does not count
    against the event, and `counted` remembers that the log need not count it again.
    """

    def __init__(self, lease: Lease) -> None:
        self.lease = lease
        self.cursor = ""
        self.counted: set[str] = set()
        self._users: dict[UserKey, Waiting] = {}

    def __len__(self) -> int:
        return sum(len(waiting.held) for waiting in self._users.values())

    def add(self, events: Iterable[LoggedEvent], now: float) -> None:
        """Takes what was read, in the log's order. `now` is monotonic, as everywhere here."""
        for event in events:
            self._users.setdefault(event.user, Waiting()).held.append(Held(event, now))

    def ready(self, settings: TrainerSettings, now: float, clock: float) -> list[Ready]:
        """Users with enough labels, or whose oldest has waited long enough, or that failed before and try again.

        A label's wait is the longer of two: since it arrived here, which no clock can falsify, and since it was
        accepted by Redis' clock, of which `clock` is this machine's view.
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
        """Tries nothing for the user until then; no attempt is counted."""
        if user in self._users:
            self._users[user].not_before = until

    def drop(self, user: UserKey) -> None:
        """Forgets a user; the log has done so already, or will be read again."""
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
