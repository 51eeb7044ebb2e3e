"""Memory stubs of the stores, for tests and benchmarks in one process and one event loop.

Each class passes the same tests as its counterpart on Redis or on files. Nothing here survives the process.
"""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from typing_extensions import override

from papa_serving.contracts.attribution import Record
from papa_serving.contracts.catalogue import CatalogueKey
from papa_serving.contracts.errors import ItemNotFound, RevisionNotFound, UserDeleted
from papa_serving.contracts.feedback import DeadLetter, Lease, LoggedEvent
from papa_serving.contracts.identity import UserKey, partition_of
from papa_serving.contracts.items import BackboneInfo, ItemStore, StoredItem
from papa_serving.contracts.recommending import SeenItems
from papa_serving.contracts.revisions import (
    DeletionReceipt,
    Holding,
    MergeClaim,
    Revision,
    RevisionStore,
    Standing,
    Usage,
    UserDirectory,
    UserState,
    plain_name,
    revision_number,
)
from papa_serving.settings import Settings
from papa_serving.store.records import check_backbone, merging_elsewhere, no_revision, user_deleted

__all__ = ["MemoryItemStore", "MemoryRevisionStore", "MemorySeenItems", "MemoryState", "MemoryUserDirectory"]


@dataclass
class MemoryUser:
    """One user.

    `ids` maps an event id to its time, digest and sequence, and so does `older_ids`, which goes first. `set_aside`
    is the user's sequence when `ids` last became `older_ids`. `noted_ids` and `older_noted_ids` are the same for events
    that are no label, and `gone` has the sequences of those whose item was gone. `grades` maps the sequences of events
    that were not taken back to their grades. `ended` and `renumbered` are those of MergeClaim. `items` maps an item id
    to its time of expiry and the item, `seen` the names of a catalogue and of its item to when it was recommended, the
    newest last. `attributed` and `impressions` are what is kept for attribution, the newest last; `counts` maps an arm
    to what the user was shown and did in it.
    """

    likes: int = 0
    dislikes: int = 0
    sequence: int = 0
    version: int = 0
    current: str = ""
    lineage: dict[str, Revision] = field(default_factory=dict)
    ids: dict[str, tuple[float, bytes, int]] = field(default_factory=dict)
    older_ids: dict[str, tuple[float, bytes, int]] = field(default_factory=dict)
    set_aside: int = 0
    noted_ids: dict[str, tuple[float, bytes, int]] = field(default_factory=dict)
    older_noted_ids: dict[str, tuple[float, bytes, int]] = field(default_factory=dict)
    gone: set[int] = field(default_factory=set)
    grades: dict[int, float] = field(default_factory=dict)
    items: dict[str, tuple[float, StoredItem]] = field(default_factory=dict)
    attributed: list[Record] = field(default_factory=list)
    impressions: list[Record] = field(default_factory=list)
    seen: dict[tuple[str, str], float] = field(default_factory=dict)
    counts: dict[str, tuple[int, ...]] = field(default_factory=dict)
    deletion: DeletionReceipt | None = None
    merging: str = ""
    merge: str = ""
    ended: list[int] = field(default_factory=list)
    renumbered: dict[int, int] = field(default_factory=dict)
    merged: dict[str, int] = field(default_factory=dict)
    """The last sequence that each merge into this user has delivered, oldest merge first."""

    def said(self, event_id: str) -> tuple[float, bytes, int]:
        """What is remembered of an event: its time, digest and sequence, all nothing for an unknown one."""
        every = (self.ids, self.older_ids, self.noted_ids, self.older_noted_ids)
        known = [ids[event_id] for ids in every if event_id in ids]
        return max(known, key=lambda said: said[2], default=(0.0, b"", 0))

    @property
    def made(self) -> int:
        """The number of revisions that were ever made."""
        return max(len(self.lineage), max(map(revision_number, self.lineage), default=0))


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
    """The state that all stubs of a test share; `clock` returns seconds since the epoch."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        self.settings = settings
        self.clock = clock
        self.partitions = [MemoryPartition() for _ in range(settings.feedback.partitions)]
        self.trainers: dict[str, tuple[float, float]] = {}
        self.backbone_info: BackboneInfo | None = None
        self.watchers: dict[UserKey, set[asyncio.Event]] = {}
        self._users: dict[UserKey, MemoryUser] = {}
        self._restored: dict[str, MemoryUser] = {}
        self._ids_given = 0

    def next_id(self) -> str:
        """A new id in the form of a Redis stream's, greater than all before."""
        self._ids_given += 1
        return f"{int(self.clock() * 1000)}-{self._ids_given}"

    def partition_of(self, user: UserKey) -> MemoryPartition:
        """The partition that holds the user's events."""
        return self.partitions[user.partition(len(self.partitions))]

    def user(self, user: UserKey) -> MemoryUser:
        """The user; a new one once the tombstone has expired. Raises UserDeleted until then."""
        if user not in self._users:
            self._users[user] = self._restored.pop(user.digest, MemoryUser())
        known = self._users[user]
        if known.deletion is None:
            return known
        if self.clock() < known.deletion.deleted_at + self.settings.store.tombstone_ttl:
            raise user_deleted()
        self._users[user] = MemoryUser()
        return self._users[user]

    def state(self, user: UserKey) -> UserState:
        """Implements UserDirectory.get."""
        known, partition = self.user(user), self.partition_of(user)
        return UserState(
            user=user,
            likes=known.likes,
            dislikes=known.dislikes,
            pending=sum(event.user == user for event in partition.events.values()),
            dead_letters=sum(letter.event.user == user for letter in partition.letters.values()),
            current=known.lineage[known.current] if known.current else None,
            version=known.version,
            revisions=known.made,
        )

    def listed(self, partition: int, tenant: str) -> list[UserKey]:
        """The users of a partition, of all tenants for "", in the order of UserDirectory.listed."""
        found = (
            user
            for user, known in self._users.items()
            if (known.sequence or known.lineage) and user.partition(len(self.partitions)) == partition
        )
        return sorted((user for user in found if tenant in ("", user.tenant)), key=_order)

    def usage(self, user: UserKey) -> Usage:
        """Implements UserDirectory.usage."""
        known = self._users.get(user, MemoryUser())
        alive = sum(until > self.clock() for until, _ in known.items.values())
        return Usage(len(known.lineage), alive, len(known.ids) + len(known.older_ids))

    def lineage(self, user: UserKey) -> dict[str, Revision]:
        """Records by name, oldest first; none of a deleted user."""
        known = self._users.get(user)
        return known.lineage if known is not None else {}

    def standing(self, digest: str) -> Standing:
        """Implements UserDirectory.standing."""
        known = self._of_digest(digest) or MemoryUser()
        return Standing(known.deletion is not None, known.made, frozenset(known.lineage))

    def restore(self, digest: str, chain: Sequence[Revision], events: Collection[str]) -> bool:
        """Implements UserDirectory.restore."""
        known = self._of_digest(digest) or self._restored.setdefault(digest, MemoryUser())
        if known.deletion is not None:
            return False
        lineage = known.lineage | {revision.name: revision for revision in chain}
        known.lineage = dict(sorted(lineage.items()))
        last = chain[-1]
        known.current, known.sequence = last.name, max(known.sequence, last.last_sequence)
        waiting = self.partitions[partition_of(digest, len(self.partitions))].events
        for entry, event in list(waiting.items()):
            if event.user.digest == digest and event.event_id in events and event.sequence <= last.last_sequence:
                del waiting[entry]
        for user in self._users:
            if user.digest == digest:
                self.changed(user)
        return True

    def _of_digest(self, digest: str) -> MemoryUser | None:
        users = (each for user, each in self._users.items() if user.digest == digest)
        return next(users, self._restored.get(digest))

    def promote(self, user: UserKey, revision: Revision) -> None:
        """Makes `revision` current and removes the oldest ones beyond the quota, except its parent."""
        known, kept = self.user(user), self.settings.store.user_revisions
        known.lineage[revision.name] = revision
        known.current = revision.name
        old = [name for name in known.lineage if name not in (revision.name, revision.parent)]
        for name in old[: max(0, len(known.lineage) - kept)]:
            del known.lineage[name]
        self.changed(user)

    def item(self, user: UserKey, item_id: str) -> StoredItem | None:
        """The item; None after its time to live, or when the user is deleted."""
        known = self._users.get(user)
        until, item = known.items.get(item_id, (0.0, None)) if known is not None else (0.0, None)
        return item if until > self.clock() else None

    def keep(self, records: list[Record], data: bytes, most: int) -> None:
        """Adds a record and removes those beyond `most`, or past their time to live."""
        records.append(Record(self.clock(), data))
        records[:] = self.alive(records)[-most:]

    def alive(self, records: list[Record]) -> list[Record]:
        """The records whose time to live has not passed."""
        since = self.clock() - self.settings.attribution.ttl
        return [record for record in records if record.at > since]

    def counts(self, tenant: str, arm: str) -> list[tuple[int, ...]]:
        """What users were shown and did in an arm, of one tenant or for "" of all."""
        users = (known for user, known in self._users.items() if tenant in ("", user.tenant))
        return [known.counts[arm] for known in users if arm in known.counts]

    def changed(self, user: UserKey) -> None:
        """Counts a change and wakes the watchers."""
        self._users[user].version += 1
        for watcher in self.watchers.get(user, ()):
            watcher.set()

    def seen(self, user: UserKey) -> str:
        """The state that a merge compares: the version and the newest item."""
        known = self._users.get(user, MemoryUser())
        return f"{known.version} {next(reversed(known.items), '')}"

    def begin_merge(self, user: UserKey, into: UserKey) -> MergeClaim:
        """Implements UserDirectory.begin_merge."""
        known = self._users.setdefault(user, MemoryUser())
        if known.deletion is not None:
            return MergeClaim(into.digest, receipt=known.deletion)
        if known.merging not in ("", into.digest):
            raise merging_elsewhere()
        known.merging, known.merge = into.digest, known.merge or secrets.token_hex(8)
        ended, renumbered = frozenset(known.ended), dict(known.renumbered)
        return MergeClaim(into.digest, self.seen(user), known.merge, ended=ended, renumbered=renumbered)

    def delete(self, user: UserKey, claim: MergeClaim | None) -> DeletionReceipt | None:
        """Implements UserDirectory.delete."""
        known = self._users.get(user, MemoryUser())
        if known.deletion is not None and self.clock() < known.deletion.deleted_at + self.settings.store.tombstone_ttl:
            return known.deletion
        if claim is not None and claim.seen != self.seen(user):
            return None
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
            merged_into=claim.into if claim is not None else "",
        )
        for entry in events:
            del partition.events[entry]
        for entry in letters:
            del partition.letters[entry]
        self._users[user] = MemoryUser(deletion=receipt)
        self.changed(user)
        return receipt


def _order(user: UserKey) -> tuple[bytes, bytes]:
    return user.tenant.encode(), user.user.encode()


class MemoryUserDirectory(UserDirectory):
    """User state: counters, pointer and lineage of a MemoryState."""

    def __init__(self, state: MemoryState) -> None:
        self._state = state

    @override
    async def get(self, user: UserKey) -> UserState:
        return self._state.state(user)

    @override
    async def listed(self, partition: int, limit: int, tenant: str = "", after: UserKey | None = None) -> list[UserKey]:
        found = self._state.listed(partition, tenant)
        return [user for user in found if after is None or _order(user) > _order(after)][:limit]

    @override
    async def usage(self, user: UserKey) -> Usage:
        return self._state.usage(user)

    @override
    async def watch(self, user: UserKey) -> AsyncIterator[UserState]:
        told = asyncio.Event()
        self._state.watchers.setdefault(user, set()).add(told)
        try:
            last = self._state.state(user)
            yield last
            while True:
                await told.wait()
                told.clear()
                state = self._state.state(user)
                if state != last:
                    last = state
                    yield state
        finally:
            self._state.watchers[user].discard(told)

    @override
    async def current(self, user: UserKey) -> Revision | None:
        return self._state.state(user).current

    @override
    async def revision(self, user: UserKey, revision: str) -> Revision:
        lineage = self._lineage(user)
        return lineage[self._known(lineage, revision)]

    @override
    async def lineage(self, user: UserKey, limit: int, before: str = "") -> list[Revision]:
        """Raises RevisionNotFound when `before` is none of the user's."""
        lineage = self._lineage(user)
        names = list(lineage)
        if before:
            names = names[: names.index(self._known(lineage, before))]
        return [lineage[name] for name in reversed(names)][:limit]

    @override
    async def rollback(self, user: UserKey, revision: str) -> UserState:
        """The lineage keeps its later revisions."""
        return self._point(user, self._known(self._state.user(user).lineage, revision))

    @override
    async def reset(self, user: UserKey) -> UserState:
        return self._point(user, "")

    @override
    async def begin_merge(self, user: UserKey, into: UserKey) -> MergeClaim:
        return self._state.begin_merge(user, into)

    @override
    async def delete(self, user: UserKey, claim: MergeClaim | None = None) -> DeletionReceipt | None:
        """While the tombstone stands, repeating answers the first receipt."""
        return self._state.delete(user, claim)

    @override
    async def standing(self, digest: str) -> Standing:
        return self._state.standing(digest)

    @override
    async def restore(self, digest: str, chain: Sequence[Revision], events: Collection[str]) -> bool:
        return self._state.restore(digest, chain, events)

    @override
    async def close(self) -> None:
        pass

    def _lineage(self, user: UserKey) -> dict[str, Revision]:
        return self._state.lineage(user)

    def _known(self, lineage: dict[str, Revision], revision: str) -> str:
        if revision not in lineage:
            raise no_revision(revision, self._state.settings.store.user_revisions)
        return revision

    def _point(self, user: UserKey, revision: str) -> UserState:
        known = self._state.user(user)
        if known.current != revision:
            known.current = revision
            self._state.changed(user)
        return self._state.state(user)


class MemoryItemStore(ItemStore):
    """Items and the announced backbone of a MemoryState."""

    def __init__(self, state: MemoryState) -> None:
        self._state = state

    @override
    async def put(self, user: UserKey, items: Sequence[StoredItem]) -> None:
        until = self._state.clock() + self._state.settings.store.item_ttl
        known = self._state.user(user).items
        known.update({item.item_id: (until, item) for item in items})
        stored = {item.item_id for item in items}
        beyond = max(0, len(known) - self._state.settings.store.user_items)
        for name in [name for name in known if name not in stored][:beyond]:
            del known[name]

    @override
    async def get(self, user: UserKey, item_id: str) -> StoredItem:
        item = self._state.item(user, item_id)
        if item is None:
            raise ItemNotFound("no such item: never made for this user, or past its time to live")
        return item

    @override
    async def of_user(self, user: UserKey) -> list[StoredItem]:
        names = list(self._state.user(user).items)
        return [item for name in names if (item := self._state.item(user, name)) is not None]

    @override
    async def publish_backbone(self, info: BackboneInfo) -> None:
        check_backbone(self._state.backbone_info or info, info.name, info.backbone_hash)
        self._state.backbone_info = info

    @override
    async def rename_backbone(self, former: str, info: BackboneInfo) -> bool:
        known = self._state.backbone_info
        if known is None or known.backbone_hash != former:
            return False
        self._state.backbone_info = info
        return True

    @override
    async def backbone_info(self) -> BackboneInfo | None:
        return self._state.backbone_info

    @override
    async def close(self) -> None:
        pass


class MemorySeenItems(SeenItems):
    """What was recommended lately."""

    def __init__(self, state: MemoryState) -> None:
        self._state = state

    @override
    async def of_user(self, user: UserKey, catalogue: CatalogueKey) -> frozenset[str]:
        oldest = self._state.clock() - self._state.settings.store.seen_ttl
        try:
            seen = self._state.user(user).seen
        except UserDeleted:
            return frozenset()
        return frozenset(item_id for (name, item_id), at in seen.items() if name == catalogue.name and at > oldest)

    @override
    async def add(self, user: UserKey, catalogue: CatalogueKey, item_ids: Sequence[str]) -> frozenset[str]:
        seen, now = self._state.user(user).seen, self._state.clock()
        new = frozenset(item_ids) - await self.of_user(user, catalogue)
        for item_id in item_ids:
            seen.pop((catalogue.name, item_id), None)
            seen[catalogue.name, item_id] = now
        for beyond in list(seen)[: max(0, len(seen) - self._state.settings.store.user_seen)]:
            del seen[beyond]
        return new

    @override
    async def close(self) -> None:
        pass


class MemoryRevisionStore(RevisionStore):
    """The files of revisions."""

    def __init__(self) -> None:
        self._files: dict[tuple[UserKey, str], dict[str, bytes]] = {}

    @override
    async def put(self, user: UserKey, revision: str, files: Mapping[str, bytes]) -> None:
        self._files.setdefault(
            (user, plain_name(revision)), {plain_name(name): bytes(data) for name, data in files.items()}
        )

    @override
    async def get(self, user: UserKey, revision: str, name: str) -> bytes:
        try:
            return self._files[user, plain_name(revision)][plain_name(name)]
        except KeyError:
            raise RevisionNotFound(f"the store holds no {name} of revision {revision}", field="revision") from None

    @override
    async def delete_user(self, user: UserKey) -> int:
        mine = [key for key in self._files if key[0] == user]
        for key in mine:
            del self._files[key]
        return len(mine)

    @override
    async def holdings(self, digest: str = "") -> AsyncIterator[Holding]:
        """All as old as can be."""
        of: dict[str, dict[str, float]] = {}
        for user, revision in self._files:
            if digest in ("", user.digest):
                of.setdefault(user.digest, {})[revision] = math.inf
        for owner, revisions in of.items():
            yield Holding(owner, revisions)

    @override
    async def read(self, digest: str, revision: str, name: str) -> bytes:
        for (user, known), files in self._files.items():
            if (user.digest, known) == (digest, revision) and name in files:
                return files[name]
        raise RevisionNotFound(f"the store holds no {name} of revision {revision}", field="revision")

    @override
    async def discard(self, digest: str, revision: str) -> None:
        self._files = {
            key: files for key, files in self._files.items() if (key[0].digest, key[1]) != (digest, revision)
        }

    @override
    async def check(self) -> None:
        """Memory can always be written to."""
