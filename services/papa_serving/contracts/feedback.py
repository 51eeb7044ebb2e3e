"""Feedback: what is appended, what a trainer reads, and the log between them.

The log is the durable order of events. Per partition there is one owner at a time, known by a lease whose epoch grows
with every change of owner; everything an owner writes names its epoch and is refused (Fenced) once that is over.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from papa_serving.contracts.attribution import UNATTRIBUTED, Attribution
from papa_serving.contracts.errors import PapaError
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.revisions import Revision

MERGED = "merged/"
"""The beginning of event ids that a merge of two users gives to the labels that it brings. No caller may use it."""


@dataclass(frozen=True)
class FeedbackEvent:
    """One label, or the withdrawal of one, or an event that is no label. `grade` is in [−1, 1] and not 0 (like = 1,
    dislike = −1). Exactly one of `item_id`, `image`, `catalogue_item` and `cancels` says what it is about. `cancels` is
    the id of the event to take back; its `grade` is 0. An event that is no label has the grade 0 as well, and a type
    in its `attribution`; its `image` is not kept. `catalogue_item` holds the names of a catalogue and of an item of it;
    then `image` is that item's picture as it is now, and b"" where there is none to learn from, for the reason
    `missing`. Only a label that is not known already needs the picture.

    `image` is a packed sample (papa_serving.contracts.samples) already in the backbone's shape. `picture` is a digest
    of the picture and prompt that the caller sent with a type: a retry is known by it whether or not the type's weight
    makes the event a label, and so `image` a sample. Times are seconds since the epoch. `traceparent` is the W3C trace
    context of the call, or "".
    """

    event_id: str
    user: UserKey
    grade: float
    item_id: str = ""
    image: bytes = b""
    picture: bytes = b""
    catalogue_item: tuple[str, str] | None = None
    missing: PapaError | None = None
    cancels: str = ""
    occurred_at: float = 0.0
    traceparent: str = ""
    attribution: Attribution = UNATTRIBUTED

    @property
    def is_label(self) -> bool:
        """Whether there is something to learn from it."""
        return self.grade != 0


@dataclass(frozen=True)
class AppendResult:
    """The result for one event: a `sequence` (1, 2, … per user) or an `error`. `item_gone` says that an event with a
    type was accepted as one that is no label, because its item is not there any more."""

    event_id: str
    sequence: int = 0
    duplicate: bool = False
    error: PapaError | None = None
    item_gone: bool = False


@dataclass(frozen=True)
class Lease:
    """Ownership of a partition. `epoch` is the fencing token, `expires_at` is Redis' clock in seconds."""

    partition: int
    owner: str
    epoch: int
    expires_at: float


@dataclass(frozen=True)
class LoggedEvent:
    """An accepted event as the owner reads it: `entry_id` is its id in the partition's stream.

    `sample` is the packed x0 (of the item or the image), copied into the event when it was accepted. So the event
    does not depend on the item's time to live. `revision` is the one that made the item ("" for base or catalogue).
    `cancels` is the sequence of the applied event that this one takes back, 0 for a label; it has no grade and sample.
    """

    entry_id: str
    sequence: int
    event_id: str
    user: UserKey
    grade: float
    sample: bytes
    revision: str
    accepted_at: float
    traceparent: str = ""
    attempts: int = 0
    cancels: int = 0


@dataclass(frozen=True)
class DeadLetter:
    """An event that no revision will apply, and why."""

    letter_id: str
    partition: int
    event: LoggedEvent
    reason: str
    at: float


@dataclass(frozen=True)
class PartitionStats:
    """`backlog` events accepted and neither applied nor dead, the oldest `oldest_age` seconds old; `dead_letters`."""

    backlog: int
    oldest_age: float
    dead_letters: int


@dataclass(frozen=True)
class UserBatch:
    """The events of one user that one update consumes, in order."""

    user: UserKey
    events: tuple[LoggedEvent, ...] = field(default=())


class FeedbackLog(ABC):
    """The durable order of feedback. Every method may raise StorageUnavailable."""

    partitions: int

    @abstractmethod
    async def append(self, events: Sequence[FeedbackEvent]) -> list[AppendResult]:
        """Appends in order, each event durable and complete before its result says so.

        One result per event, in order. A label with a type whose item is not found is accepted as an event that is no
        label (`AppendResult.item_gone`). Errors in results: ItemNotFound or `missing` otherwise, EventNotFound,
        UserDeleted, BacklogFull, UserBacklogFull, EventIdReused.
        Raises only when the outcome of the whole call is unknown. A retry with the same event_ids is then harmless.
        """

    @abstractmethod
    async def acquire(self, partition: int, owner: str, seconds: float) -> Lease | None:
        """Takes the partition if it is free, expired or this owner's already (the epoch then stays); else None."""

    @abstractmethod
    async def renew(self, lease: Lease, seconds: float) -> Lease:
        """Extends the lease; raises Fenced when its epoch is over."""

    @abstractmethod
    async def release(self, lease: Lease) -> None:
        """Releases the partition; harmless when the epoch is over."""

    @abstractmethod
    async def read(self, lease: Lease, after: str, limit: int) -> list[LoggedEvent]:
        """Up to `limit` unapplied events behind entry id `after` ("" = from the first one), in order, at once.

        Raises Fenced. Reading does not consume: until commit or bury, a new owner reads the same events again.
        """

    @abstractmethod
    async def pending(self, user: UserKey, after: int = 0, limit: int = 100) -> list[LoggedEvent]:
        """Unapplied events of one user above the sequence `after`, in order; needs no lease and consumes nothing."""

    async def news(self, after: Mapping[int, str]) -> set[int]:
        """The partitions that may hold events behind the given entry id ("" = any).

        It is a hint that saves reads. It never leaves out a partition with such events, but may name one without.
        """
        return set(after)

    @abstractmethod
    async def begin_attempt(self, lease: Lease, batch: UserBatch) -> tuple[int, ...]:
        """Counts one more attempt at each event (in the log, so that a crash counts) and returns the counts."""

    @abstractmethod
    async def commit(self, lease: Lease, batch: UserBatch, revision: Revision) -> bool:
        """Checks epoch, parent and tombstone, then moves the pointer, extends the lineage and removes the events.

        All of this is one atomic step. Returns True when this call did it, or an earlier call with the same revision
        whose reply was lost.

        Raises Fenced, LineageConflict (the pointer is not revision.parent), UserDeleted (events are dropped).
        """

    @abstractmethod
    async def adopt(self, user: UserKey, revision: Revision) -> None:
        """Commits a revision that applies no events, without owning the partition.

        Only the parent fences it: a concurrent update then expects another parent than the pointer and is refused.
        Raises LineageConflict, UserDeleted.
        """

    @abstractmethod
    async def bury(self, lease: Lease, events: Sequence[LoggedEvent], reason: str) -> None:
        """Moves events to the dead letters in one step. Raises Fenced."""

    @abstractmethod
    async def stats(self, partition: int) -> PartitionStats:
        """Counts for metrics, autoscaling and backpressure."""

    @abstractmethod
    async def dead_letters(self, partition: int, limit: int = 100, after: str = "") -> list[DeadLetter]:
        """The oldest dead letters first, those behind letter id `after` ("" = from the first one)."""

    @abstractmethod
    async def dead_letter(self, partition: int, letter_id: str) -> DeadLetter | None:
        """One dead letter; None when it is gone or the id is malformed."""

    @abstractmethod
    async def retry_dead_letter(self, letter: DeadLetter) -> bool:
        """Appends the event again as the user's newest; False when the letter is gone."""

    @abstractmethod
    async def drop_dead_letter(self, letter: DeadLetter) -> bool:
        """Removes the letter for good; False when it is gone."""

    @abstractmethod
    async def heartbeat(self, member: str, seconds: float) -> list[str]:
        """Announces a trainer for the next `seconds` and returns the live ones, sorted."""

    @abstractmethod
    async def close(self) -> None:
        """Closes connections."""
