"""User state on Redis: one hash per user, and the lineage."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import AsyncIterator, Collection, Sequence

from redis.exceptions import RedisError
from typing_extensions import override

from papa_serving.contracts.errors import RevisionNotFound, StorageDamaged, StorageUnavailable
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.revisions import (
    DeletionReceipt,
    MergeClaim,
    Revision,
    Standing,
    Usage,
    UserDirectory,
    UserState,
)
from papa_serving.settings import StoreSettings
from papa_serving.store.records import (
    STATE_FIELDS,
    check_deletion,
    decode_receipt,
    decode_revision,
    decode_state,
    encode_revision,
    merging_elsewhere,
    no_revision,
)
from papa_serving.store.redis_changes import ChangeFeed
from papa_serving.store.redis_client import Argument, Client, call, call_all, unavailable
from papa_serving.store.redis_keys import GROUP, Keys, user_entry, user_of_entry
from papa_serving.store.redis_replies import checked_replies
from papa_serving.store.redis_scripts import load

_POINT = load(__package__, "point", list | int)
_LINEAGE = load(__package__, "lineage", list | int)
_BEGIN_MERGE = load(__package__, "begin_merge", list)
_DELETE = load(__package__, "delete_user", bytes | None)
_RESTORE = load(__package__, "restore", int)


@checked_replies()
class RedisUserDirectory(UserDirectory):
    """Reads, resets and removes counters and pointers. The scripts of the feedback log write them."""

    def __init__(self, client: Client, changes: ChangeFeed, keys: Keys, settings: StoreSettings) -> None:
        self._client = client
        self._keys = keys
        self._tombstone_ttl = max(1, round(settings.tombstone_ttl * 1000))
        self._ids_ttl = max(1, round(settings.event_id_ttl * 1000))
        self._changes = changes
        self._kept = settings.user_revisions

    @override
    async def get(self, user: UserKey) -> UserState:
        return decode_state(user, await self._fields(user, *STATE_FIELDS))

    @override
    async def listed(self, partition: int, limit: int, tenant: str = "", after: UserKey | None = None) -> list[UserKey]:
        """In the order of the UTF-8 of tenant and name. ASCII 0 stands between both, and 1 behind all of a tenant's."""
        first, last = (f"[{tenant}\0", f"({tenant}\1") if tenant else ("-", "+")
        if after is not None and (not tenant or after.tenant >= tenant):
            first = f"({user_entry(after)}"
        key = self._keys.partitions[partition].users
        entries = await call(self._client, "ZRANGEBYLEX", key, first, last, "LIMIT", 0, limit)
        return [user_of_entry(entry) for entry in entries]

    @override
    async def usage(self, user: UserKey) -> Usage:
        """Makes one round trip. Items whose time to live has passed by this machine's clock do not count."""
        keys, now = self._keys.user(user), round(time.time() * 1000)
        counts = await call_all(
            self._client,
            [
                ("ZCARD", keys.lineage),
                ("ZCOUNT", keys.items, now, "+inf"),
                ("HLEN", keys.ids),
                ("HLEN", keys.older_ids),
            ],
        )
        for count in counts:
            if isinstance(count, RedisError):
                raise unavailable(count)
        revisions, items, ids, older_ids = map(int, counts)
        return Usage(revisions, items, ids + older_ids)

    @override
    async def watch(self, user: UserKey) -> AsyncIterator[UserState]:
        """Subscribes before it reads, so that no change is missed. Raises StorageDamaged, but waits for an outage's
        end."""
        async with self._changes.listen(self._keys.user(user).state) as change:
            last = await self.get(user)
            yield last
            while not self._changes.closed:
                await change.wait()
                try:
                    state = await self.get(user)
                except StorageDamaged:
                    raise
                except StorageUnavailable:
                    continue  # the end of the outage is a notification
                if state != last:
                    last = state
                    yield state

    @override
    async def current(self, user: UserKey) -> Revision | None:
        deleted, record = await self._fields(user, "deleted", "record")
        check_deletion(deleted)
        return decode_revision(record) if record else None

    @override
    async def revision(self, user: UserKey, revision: str) -> Revision:
        record = await call(self._client, "HGET", self._keys.user(user).records, revision)
        if record is None:
            raise self._no_revision(revision)
        return decode_revision(record)

    @override
    async def lineage(self, user: UserKey, limit: int, before: str = "") -> list[Revision]:
        """Raises RevisionNotFound when `before` is none of the user's."""
        keys = self._keys.user(user)
        records = await _LINEAGE.run(self._client, [keys.lineage, keys.records], [limit, before])
        if records == 0:
            raise self._no_revision(before)
        return [decode_revision(record) for record in records]

    @override
    async def rollback(self, user: UserKey, revision: str) -> UserState:
        """The lineage keeps its later revisions; the next update's parent is `revision`."""
        if not revision:
            raise self._no_revision(revision)
        return await self._point(user, revision)

    @override
    async def reset(self, user: UserKey) -> UserState:
        """The lineage stays, so that rollback can undo this."""
        return await self._point(user, "")

    @override
    async def begin_merge(self, user: UserKey, into: UserKey) -> MergeClaim:
        keys = self._keys.user(user)
        outcome, *about = await _BEGIN_MERGE.run(
            self._client, [keys.state, keys.items], [into.digest, secrets.token_hex(8)]
        )
        if outcome == b"other":
            raise merging_elsewhere()
        if outcome == b"deleted":
            return MergeClaim(into.digest, receipt=decode_receipt(about[0]))
        seen, merge, ended, renumbered = (each.decode() for each in about)
        moved = (pair.partition(":") for pair in renumbered.split())
        return MergeClaim(
            into.digest,
            seen,
            merge,
            ended=frozenset(map(int, ended.split())),
            renumbered={int(number): int(first) for number, _, first in moved},
        )

    @override
    async def delete(self, user: UserKey, claim: MergeClaim | None = None) -> DeletionReceipt | None:
        """Runs one script. While the tombstone exists, a repeated call returns the first receipt."""
        keys = self._keys.user(user)
        partition = keys.partition
        script_keys = [keys.state, keys.pending, keys.letters, keys.ids, keys.older_ids, keys.lineage, keys.records]
        script_keys += [keys.items, keys.attributed, keys.impressions, keys.counts, keys.seen]
        script_keys += [partition.events, partition.dead, partition.users]
        script_keys += [partition.sums(user.tenant), partition.sums(), keys.noted_ids, keys.older_noted_ids]
        arguments: list[Argument] = [secrets.token_hex(16), self._tombstone_ttl, GROUP, keys.item("")]
        arguments += [claim.into, claim.seen] if claim is not None else ["", ""]
        arguments += [user_entry(user)]
        receipt = await _DELETE.run(self._client, script_keys, arguments)
        return None if receipt is None else decode_receipt(receipt)

    @override
    async def standing(self, digest: str) -> Standing:
        """Makes two look-ups. Only a later revision can come between them, and the first does not count it."""
        keys = self._keys.of_digest(digest)
        deleted, revisions = await call(self._client, "HMGET", keys.state, "deleted", "revisions")
        lineage = await call(self._client, "ZRANGE", keys.lineage, 0, -1)
        return Standing(bool(deleted), int(revisions or 0), frozenset(name.decode() for name in lineage))

    @override
    async def restore(self, digest: str, chain: Sequence[Revision], events: Collection[str]) -> bool:
        keys = self._keys.of_digest(digest)
        script_keys = [keys.state, keys.pending, keys.lineage, keys.records, keys.partition.events]
        script_keys += [keys.ids, keys.older_ids]
        arguments: list[Argument] = [GROUP, json.dumps(sorted(events)), self._ids_ttl]
        for revision in chain:
            arguments += [revision.name, encode_revision(revision), revision.last_sequence]
        return bool(await _RESTORE.run(self._client, script_keys, arguments))

    @override
    async def close(self) -> None:
        """Ends every watch and closes the connection pool."""
        await self._changes.close()
        await self._client.aclose()

    async def _fields(self, user: UserKey, *names: str) -> list[bytes | None]:
        values: list[bytes | None] = await call(self._client, "HMGET", self._keys.user(user).state, *names)
        return values

    def _no_revision(self, revision: str) -> RevisionNotFound:
        return no_revision(revision, self._kept)

    async def _point(self, user: UserKey, revision: str) -> UserState:
        keys = self._keys.user(user)
        values = await _POINT.run(self._client, [keys.state, keys.records], [revision, *STATE_FIELDS])
        if values == 0:
            raise self._no_revision(revision)
        return decode_state(user, values)
