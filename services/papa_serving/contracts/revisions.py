"""Revisions: the immutable adapters of a user, the stores of their files, and the pointer to the current one."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from papa_serving.contracts.errors import RevisionNotFound
from papa_serving.contracts.identity import UserKey

BASE = "base"
"""Stands for the backbone where the name of a revision is expected."""

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def revision_name(number: int, sha256: str) -> str:
    """The name of a user's revision `number`. Names sort by age, for instance "000012-1f3a9c0e"."""
    return f"{number:06d}-{sha256[:8]}"


def revision_number(name: str) -> int:
    """The number at the beginning of a revision's name; 0 for a name of another form."""
    digits = name.partition("-")[0]
    return int(digits) if digits.isascii() and digits.isdigit() else 0


def plain_name(name: str) -> str:
    """Returns the name of a revision or file if it may be part of a path.

    Raises ValueError unless it is letters, digits, dots, dashes and underscores, and does not begin with a dot.
    """
    if not _PLAIN.fullmatch(name):
        raise ValueError(f"{name!r} is no plain name of a revision or of its file")
    return name


@dataclass(frozen=True)
class Revision:
    """The record of one revision, as the lineage holds it.

    `name` is unique per user and sorts by age ("000012-1f3a9c0e"); `parent` is "" for a first one. `sha256` is of
    the manifest file, which in turn holds the sha256 of every other file of the revision. `first_sequence` and
    `last_sequence` bound the events that it applied; `accepted_at` is when the last of them was accepted, 0 if unknown.
    `traceparent` is the trace context of the update that made it, "" without. `remembered` counts the labels in its
    replay, 0 if unknown.
    """

    name: str
    parent: str
    created_at: float
    sha256: str
    events_applied: int
    events_total: int
    first_sequence: int = 0
    last_sequence: int = 0
    accepted_at: float = 0.0
    traceparent: str = ""
    remembered: int = 0


@dataclass(frozen=True)
class UserState:
    """A user at one moment. `version` grows with every change. `current` is None while the base serves.

    `revisions` counts all that were ever made: the next one's number is `revisions` + 1, also after a rollback.
    """

    user: UserKey
    likes: int = 0
    dislikes: int = 0
    pending: int = 0
    dead_letters: int = 0
    current: Revision | None = None
    version: int = 0
    revisions: int = 0


@dataclass(frozen=True)
class Usage:
    """What one user takes of the quotas: revisions kept, items that feedback may name, event ids remembered."""

    revisions: int = 0
    items: int = 0
    event_ids: int = 0


@dataclass(frozen=True)
class Quotas:
    """The most of each that one user may have; `pending_events` are events that no revision has applied yet."""

    revisions: int
    items: int
    event_ids: int
    pending_events: int


@dataclass(frozen=True)
class DeletionReceipt:
    """The receipt of a deletion."""

    receipt_id: str
    deleted_at: float
    events: int
    dead_letters: int
    items: int
    revisions: int
    merged_into: str = ""
    """The digest of the user who received the labels; "" after a plain deletion."""


@dataclass(frozen=True)
class MergeClaim:
    """A merge into the user with the digest `into` has begun.

    `seen` identifies the user's state at that time. `merge` names the merge: every attempt has the same name, and a
    merge of a later user with the same id has another. `receipt` is set if the user was already deleted.

    `ended` has the sequences of the user's events that were taken back since the merge began. `renumbered` maps the
    sequence of a dead letter that was retried since to the one that it had before. Of both the newest thousand are
    known.
    """

    into: str
    seen: str = ""
    merge: str = ""
    receipt: DeletionReceipt | None = None
    ended: frozenset[int] = frozenset()
    renumbered: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Holding:
    """The revisions that a store holds of the user with this digest: name → seconds since it was written."""

    digest: str
    revisions: Mapping[str, float]


@dataclass(frozen=True)
class Standing:
    """The directory's record of the user with a digest.

    `deleted` is true while a tombstone exists. `revisions` counts all that were ever made; it is 0 for an unknown user.
    `lineage` has the names of the revisions.
    """

    deleted: bool = False
    revisions: int = 0
    lineage: frozenset[str] = frozenset()


class UserDirectory(ABC):
    """User state: counters, pointer, lineage. Every method may raise StorageUnavailable; unknown users are all zero."""

    @abstractmethod
    async def get(self, user: UserKey) -> UserState:
        """The state now. Raises UserDeleted while a tombstone stands."""

    @abstractmethod
    async def listed(self, partition: int, limit: int, tenant: str = "", after: UserKey | None = None) -> list[UserKey]:
        """Users of one partition who have given feedback or have an adapter, in a fixed order, those after `after`.

        "" means those of every tenant. A user of a former release, or one who was restored, is listed from
        the next event or revision on: `restore` knows the digest of a user alone, not the name.
        """

    @abstractmethod
    async def usage(self, user: UserKey) -> Usage:
        """What the user takes of the quotas now; nothing for a deleted one."""

    @abstractmethod
    def watch(self, user: UserKey) -> AsyncIterator[UserState]:
        """The state now, then after each change; changes that follow closely may be reported as one."""

    @abstractmethod
    async def current(self, user: UserKey) -> Revision | None:
        """The pointer, for the hot path; None means base. Raises UserDeleted."""

    @abstractmethod
    async def revision(self, user: UserKey, revision: str) -> Revision:
        """One record of the lineage. Raises RevisionNotFound."""

    async def parent(self, user: UserKey, revision: Revision) -> Revision | None:
        """The record of the previous revision; None if there is none or its record is gone."""
        if not revision.parent:
            return None
        try:
            return await self.revision(user, revision.parent)
        except RevisionNotFound:
            return None

    @abstractmethod
    async def lineage(self, user: UserKey, limit: int, before: str = "") -> list[Revision]:
        """The lineage, newest first; only revisions older than `before`, if given."""

    @abstractmethod
    async def rollback(self, user: UserKey, revision: str) -> UserState:
        """Points at an earlier revision of the lineage. Raises RevisionNotFound, UserDeleted."""

    @abstractmethod
    async def reset(self, user: UserKey) -> UserState:
        """Points at the base, so that the next update starts afresh."""

    @abstractmethod
    async def begin_merge(self, user: UserKey, into: UserKey) -> MergeClaim:
        """Notes that the user is being merged into another user.

        Raises LineageConflict if a merge into a different user has begun.
        """

    @abstractmethod
    async def delete(self, user: UserKey, claim: MergeClaim | None = None) -> DeletionReceipt | None:
        """Sets the tombstone, then removes events, dead letters, items, counters and lineage. Repeating is harmless.

        With a claim it does nothing and returns None if the user has changed since the claim.

        The caller removes the revision files afterwards (RevisionStore.delete_user). After the tombstone's time to
        live the user id may be used afresh.
        """

    @abstractmethod
    async def standing(self, digest: str) -> Standing:
        """The standing of the user with this digest."""

    @abstractmethod
    async def restore(self, digest: str, chain: Sequence[Revision], events: Collection[str]) -> bool:
        """Restores a lineage (oldest first) that the directory has lost, and points at its last revision.

        Removes unapplied events that the chain has applied (`events`, by event id). Everything else that the directory
        still knows stays. Returns False and does nothing for a deleted user.
        """

    @abstractmethod
    async def close(self) -> None:
        """Closes connections."""


class RevisionStore(ABC):
    """The files of revisions. They are immutable and are written before any pointer names the revision."""

    @abstractmethod
    async def put(self, user: UserKey, revision: str, files: Mapping[str, bytes]) -> None:
        """Writes all files durably; writing the same revision again is harmless. Raises StorageUnavailable."""

    @abstractmethod
    async def get(self, user: UserKey, revision: str, name: str) -> bytes:
        """One file. Raises RevisionNotFound, StorageUnavailable."""

    @abstractmethod
    async def delete_user(self, user: UserKey) -> int:
        """Removes every revision of the user and returns how many there were."""

    @abstractmethod
    def holdings(self, digest: str = "") -> AsyncIterator[Holding]:
        """The complete revisions of every user, or of the user with this digest."""

    @abstractmethod
    async def read(self, digest: str, revision: str, name: str) -> bytes:
        """Like `get`, for a user of whom only the digest is known."""

    @abstractmethod
    async def discard(self, digest: str, revision: str) -> None:
        """Removes one revision that nothing names; harmless when it is gone."""

    @abstractmethod
    async def check(self) -> None:
        """Raises StorageUnavailable unless the store can be written to."""
