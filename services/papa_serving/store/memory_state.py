"""What the in-memory stubs share: the state that Redis would hold, for one process and one event loop."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from papa_serving.contracts.feedback import DeadLetter, Lease, LoggedEvent
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.items import BackboneInfo, StoredItem
from papa_serving.contracts.revisions import DeletionReceipt, Revision, Standing, UserState
from papa_serving.settings import Settings
from papa_serving.store.records import user_deleted


@dataclass
class MemoryUser:
    """One user. `ids`: event id → when, what was said, sequence. `items`: item id → until when, item."""

    likes: int = 0
    dislikes: int = 0
    sequence: int = 0
    version: int = 0
    current: str = ""
    lineage: dict[str, Revision] = field(default_factory=dict)
    ids: dict[str, tuple[float, bytes, int]] = field(default_factory=dict)
    items: dict[str, tuple[float, StoredItem]] = field(default_factory=dict)
    deletion: DeletionReceipt | None = None


@dataclass
class MemoryPartition:
    """One partition; entry ids and letter ids are in order of insertion. `since`: when the lease was last
    prolonged."""

    events: dict[str, LoggedEvent] = field(default_factory=dict)
    letters: dict[str, DeadLetter] = field(default_factory=dict)
    lease: Lease | None = None
    since: float = 0.0
    epoch: int = 0


class MemoryState:
    """Give one to every stub of a test; `clock` in seconds since the epoch."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        self.settings = settings
        self.clock = clock
        self.partitions = [MemoryPartition() for _ in range(settings.feedback.partitions)]
        self.trainers: dict[str, tuple[float, float]] = {}
        self.backbone: BackboneInfo | None = None
        self.watchers: dict[UserKey, set[asyncio.Event]] = {}
        self._users: dict[UserKey, MemoryUser] = {}
        self._ids_given = 0

    def next_id(self) -> str:
        """An id of the form that Redis gives, greater than all before."""
        self._ids_given += 1
        return f"{int(self.clock() * 1000)}-{self._ids_given}"

    def partition_of(self, user: UserKey) -> MemoryPartition:
        """Where the user's events are."""
        return self.partitions[user.partition(len(self.partitions))]

    def user(self, user: UserKey) -> MemoryUser:
        """The user, a new one after the tombstone's time. Raises UserDeleted before it."""
        known = self._users.setdefault(user, MemoryUser())
        if known.deletion is None:
            return known
        if self.clock() < known.deletion.deleted_at + self.settings.store.tombstone_ttl:
            raise user_deleted()
        self._users[user] = MemoryUser()
        return self._users[user]

    def state(self, user: UserKey) -> UserState:
        """What UserDirectory.get answers."""
        known, partition = self.user(user), self.partition_of(user)
        return UserState(
            user=user,
            likes=known.likes,
            dislikes=known.dislikes,
            pending=sum(event.user == user for event in partition.events.values()),
            dead_letters=sum(letter.event.user == user for letter in partition.letters.values()),
            current=known.lineage[known.current] if known.current else None,
            version=known.version,
            revisions=len(known.lineage),
        )

    def lineage(self, user: UserKey) -> dict[str, Revision]:
        """Records by name, oldest first; none of a deleted user."""
        known = self._users.get(user)
        return known.lineage if known is not None else {}

    def standing(self, digest: str) -> Standing:
        """What UserDirectory.standing answers."""
        known = next((each for user, each in self._users.items() if user.digest == digest), MemoryUser())
        return Standing(known.deletion is not None, len(known.lineage), frozenset(known.lineage))

    def item(self, user: UserKey, item_id: str) -> StoredItem | None:
        """None past its time to live, and of a deleted user."""
        known = self._users.get(user)
        until, item = known.items.get(item_id, (0.0, None)) if known is not None else (0.0, None)
        return item if until > self.clock() else None

    def changed(self, user: UserKey) -> None:
        """Counts a change and wakes whoever watches."""
        self._users[user].version += 1
        for watcher in self.watchers.get(user, ()):
            watcher.set()

    def delete(self, user: UserKey) -> DeletionReceipt:
        """What UserDirectory.delete does."""
        known = self._users.get(user, MemoryUser())
        if known.deletion is not None and self.clock() < known.deletion.deleted_at + self.settings.store.tombstone_ttl:
            return known.deletion
        partition, now = self.partition_of(user), self.clock()
        events = [entry for entry, event in partition.events.items() if event.user == user]
        letters = [entry for entry, letter in partition.letters.items() if letter.event.user == user]
        receipt = DeletionReceipt(
            receipt_id=secrets.token_hex(16),
            deleted_at=now,
            events=len(events),
            dead_letters=len(letters),
            items=sum(until > now for until, _ in known.items.values()),
            revisions=len(known.lineage),
        )
        for entry in events:
            del partition.events[entry]
        for entry in letters:
            del partition.letters[entry]
        self._users[user] = MemoryUser(deletion=receipt)
        self.changed(user)
        return receipt
