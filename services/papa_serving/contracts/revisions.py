"""Revisions: the immutable adapters of a user, where their bytes lie, and which one is current."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass

from papa_serving.contracts.errors import RevisionNotFound
from papa_serving.contracts.identity import UserKey

BASE = "base"
"""The name of the backbone where a revision is asked for."""

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def revision_name(number: int, sha256: str) -> str:
    """The name of a user's `number`-th revision: it sorts by age, and begins with the number ("000012-1f3a9c0e")."""
    return f"{number:06d}-{sha256[:8]}"


def revision_number(name: str) -> int:
    """The number that a revision's name begins with; 0 for a name of another form."""
    digits = name.partition("-")[0]
    return int(digits) if digits.isascii() and digits.isdigit() else 0


def plain_name(name: str) -> str:
    """The name of a revision or of its file, fit to be part of a path.

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
    `traceparent` is the trace context of the update that made it, "" without.
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
class DeletionReceipt:
    """What a deletion removed."""

    receipt_id: str
    deleted_at: float
    events: int
    dead_letters: int
    items: int
    revisions: int
    merged_into: str = ""
    """Digest of the user who has the labels now, "" after a plain deletion."""


@dataclass(frozen=True)
class MergeClaim:
    """A merge into the user with the digest `into` has begun. `seen` stands for what the user was like then; `receipt`
    is set where the user was deleted before."""

    into: str
    seen: str = ""
    receipt: DeletionReceipt | None = None


@dataclass(frozen=True)
class Holding:
    """What a revision store holds of the user with this digest: name → seconds since it was written."""

    digest: str
    revisions: Mapping[str, float]


@dataclass(frozen=True)
class Standing:
    """What the directory knows of the user with a digest: `deleted` while a tombstone stands; `revisions` counts all
    that were ever made, 0 also for one whom it does not know; `lineage` names them."""

    deleted: bool = False
    revisions: int = 0
    lineage: frozenset[str] = frozenset()


class UserDirectory(ABC):
    """User state: counters, pointer, lineage. Every method may raise StorageUnavailable; unknown users are all zero."""

    @abstractmethod
    async def get(self, user: UserKey) -> UserState:
        """The state now. Raises UserDeleted while a tombstone stands."""

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
        """The record of the revision before; None where there is none, or none is known any more."""
        if not revision.parent:
            return None
        try:
            return await self.revision(user, revision.parent)
        except RevisionNotFound:
            return None

    @abstractmethod
    async def lineage(self, user: UserKey, limit: int, before: str = "") -> list[Revision]:
        """Newest first, those older than `before` when given."""

    @abstractmethod
    async def rollback(self, user: UserKey, revision: str) -> UserState:
        """Points at an earlier revision of the lineage. Raises RevisionNotFound, UserDeleted."""

    @abstractmethod
    async def reset(self, user: UserKey) -> UserState:
        """Points at the base; the next update starts afresh."""

    @abstractmethod
    async def begin_merge(self, user: UserKey, into: UserKey) -> MergeClaim:
        """Notes that the user is being merged into another. Raises LineageConflict where a merge into somebody else has
        begun."""

    @abstractmethod
    async def delete(self, user: UserKey, claim: MergeClaim | None = None) -> DeletionReceipt | None:
        """With a claim, None and nothing happens when the user has changed since. Without one never None.

        Sets the tombstone, then removes events, dead letters, items, counters and lineage. Repeating is harmless.

        The caller removes the revision files afterwards (RevisionStore.delete_user). After the tombstone's time to
        live the user id may be used afresh.
        """

    @abstractmethod
    async def standing(self, digest: str) -> Standing:
        """Of whichever user has this digest."""

    @abstractmethod
    async def restore(self, digest: str, chain: Sequence[Revision], events: Collection[str]) -> bool:
        """Puts back a lineage (oldest first) that the revision store knows and the directory lost; points at its end.

        Unapplied events that the chain has applied (`events`, by event id) are removed. What the directory still has
        stays. False, and nothing happens, for a deleted user.
        """

    @abstractmethod
    async def close(self) -> None:
        """Closes connections."""


class RevisionStore(ABC):
    """The files of revisions. Immutable: a revision's folder is written once, before any pointer names it."""

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
        """What is there of every user, or of the one with this digest; unfinished ones are left out."""

    @abstractmethod
    async def read(self, digest: str, revision: str, name: str) -> bytes:
        """`get` for whom only the digest is known."""

    @abstractmethod
    async def discard(self, digest: str, revision: str) -> None:
        """Removes one revision that nothing names; harmless when it is gone."""

    @abstractmethod
    async def check(self) -> None:
        """Raises StorageUnavailable unless the store can be written to."""
