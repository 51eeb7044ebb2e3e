"""The feedback log on Redis Streams: one stream a partition, one fenced owner at a time.

A consumer group distributes entries among its consumers. Here the lease decides who may read, and a new owner must see
all uncommitted entries in order. So an owner reads ranges, and there is no cursor. The consumer group is used to count
in Redis how often each trainer has attempted an event. An entry leaves its stream when a commit applies it or when it
becomes a dead letter. Streams are never trimmed.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from redis.exceptions import RedisError
from typing_extensions import override

from papa_serving import metrics
from papa_serving.contracts.errors import Fenced, LineageConflict, StorageDamaged
from papa_serving.contracts.feedback import (
    AppendResult,
    DeadLetter,
    FeedbackEvent,
    FeedbackLog,
    Lease,
    LoggedEvent,
    PartitionStats,
    UserBatch,
)
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.revisions import Revision
from papa_serving.feedback.entries import decode_event, decode_letter, is_entry_id
from papa_serving.feedback.redis_append import Appender, Bounds, SharedAppend
from papa_serving.settings import Settings
from papa_serving.store.records import encode_revision, user_deleted
from papa_serving.store.redis_client import Argument, Client, ClusterClient, call, call_all, unavailable
from papa_serving.store.redis_keys import GROUP, Keys, user_entry
from papa_serving.store.redis_replies import checked_replies, damaged
from papa_serving.store.redis_scripts import Script, load

_ACQUIRE = load(__package__, "acquire", list | None)
_RENEW = load(__package__, "renew", int | None)
_RELEASE = load(__package__, "release", int)
_READ = load(__package__, "read", list | None)
_BEGIN_ATTEMPT = load(__package__, "begin_attempt", bytes | None)
_COMMIT = load(__package__, "commit", bytes)
_BURY = load(__package__, "bury", int | None)
_PENDING = load(__package__, "pending", list)
_STATS = load(__package__, "stats", list)
_HEARTBEAT = load(__package__, "heartbeat", list)
_RETRY_LETTER, _DROP_LETTER = (load(__package__, f"{what}_dead_letter", int) for what in ("retry", "drop"))

CALL_TTL = 60_000
"""Milliseconds for which a repeated call gets the answer of the first one."""


@checked_replies()
class RedisFeedbackLog(FeedbackLog):
    """Runs one Lua script per method. Each script can safely be repeated."""

    def __init__(self, client: Client, keys: Keys, settings: Settings) -> None:
        self.partitions = len(keys.partitions)
        self._client = client
        self._keys = keys
        self._revisions_kept = settings.store.user_revisions
        self._ids_ttl = _milliseconds(settings.store.event_id_ttl)
        kept = settings.attribution
        bounds = Bounds(
            settings.feedback.backlog_limit,
            self._ids_ttl,
            settings.store.user_event_ids,
            kept.events,
            _milliseconds(kept.ttl),
        )
        self._appends = SharedAppend(Appender(client, keys, bounds).append)

    @override
    async def append(self, events: Sequence[FeedbackEvent]) -> list[AppendResult]:
        """If Redis refused only some partitions, their results contain StorageUnavailable."""
        return await self._appends.append(events)

    @override
    async def acquire(self, partition: int, owner: str, seconds: float) -> Lease | None:
        keys = self._keys.partitions[partition]
        taken = await _ACQUIRE.run(self._client, [keys.lease, keys.events], [owner, _milliseconds(seconds), GROUP])
        return Lease(partition, owner, taken[0], taken[1] / 1000) if taken else None

    @override
    async def renew(self, lease: Lease, seconds: float) -> Lease:
        """Also renews an expired lease if nobody has taken the partition since."""
        expiry = await self._owned(_RENEW, lease, [], [_milliseconds(seconds)])
        return Lease(lease.partition, lease.owner, lease.epoch, expiry / 1000)

    @override
    async def release(self, lease: Lease) -> None:
        """Ends the lease at once, so that the next owner need not wait."""
        await _RELEASE.run(self._client, [self._keys.partitions[lease.partition].lease], [lease.owner, lease.epoch])

    @override
    async def read(self, lease: Lease, after: str, limit: int) -> list[LoggedEvent]:
        """Reads a range, so reading twice gives the same events."""
        keys = self._keys.partitions[lease.partition]
        start = f"({after}" if after else "-"
        entries, attempts = await self._owned(_READ, lease, [keys.events], [GROUP, start, limit])
        counts = dict(map(tuple, attempts))
        return [
            decode_event(entry_id, dict(zip(fields[::2], fields[1::2], strict=True)), counts.get(entry_id, 0))
            for entry_id, fields in entries
        ]

    @override
    async def pending(self, user: UserKey, after: int = 0, limit: int = 100) -> list[LoggedEvent]:
        keys = self._keys.user(user)
        entries = await _PENDING.run(self._client, [keys.partition.events, keys.pending], [after, limit])
        return [decode_event(entry, dict(zip(f[::2], f[1::2], strict=True)), 0) for entry, f in entries]

    @override
    async def news(self, after: Mapping[int, str]) -> set[int]:
        """Uses one non-blocking XREAD over all streams; on a Cluster, one range of length 1 per stream."""
        streams = {self._keys.partitions[partition].events: partition for partition in after}
        if not streams:
            return set()
        if isinstance(self._client, ClusterClient):
            return await self._news_by_stream(after)
        last_seen = [entry_id or "0" for entry_id in after.values()]
        try:
            found = await call(self._client, "XREAD", "COUNT", 1, "STREAMS", *streams, *last_seen)
        except StorageDamaged:  # one of them is no stream, and Redis then reads none
            return await self._news_by_stream(after)
        return {streams[stream.decode()] for stream, _ in found or ()}

    async def _news_by_stream(self, after: Mapping[int, str]) -> set[int]:
        """Asks stream by stream: on a Cluster, one command cannot name keys of several hash slots.

        A damaged stream counts as news, so that whoever reads it learns what is wrong with it.
        """
        streams = {partition: self._keys.partitions[partition].events for partition in after}
        starts = [f"({entry_id}" if entry_id else "-" for entry_id in after.values()]
        ranges = zip(streams.values(), starts, strict=True)
        replies = await call_all(self._client, [("XRANGE", key, start, "+", "COUNT", 1) for key, start in ranges])
        for reply in replies:
            if isinstance(reply, RedisError) and not isinstance(error := unavailable(reply), StorageDamaged):
                raise error from reply
        return {partition for partition, reply in zip(streams, replies, strict=True) if reply}

    @override
    async def begin_attempt(self, lease: Lease, batch: UserBatch) -> tuple[int, ...]:
        """Counts attempts as deliveries in the consumer group, so XPENDING shows them."""
        keys = self._keys.user(batch.user)
        own = [keys.partition.events, keys.pending, keys.partition.call(secrets.token_hex(16))]
        counts = await self._owned(_BEGIN_ATTEMPT, lease, own, [GROUP, CALL_TTL, *_entry_ids(batch.events)])
        return tuple(int(count) for count in counts.split())

    @override
    async def commit(self, lease: Lease, batch: UserBatch, revision: Revision) -> bool:
        """LineageConflict also when the events are not the user's oldest unapplied ones."""
        outcome = await self._commit(batch.user, revision, [lease.owner, lease.epoch], _entry_ids(batch.events))
        if outcome == b"fenced":
            raise _fenced(lease)
        return True

    @override
    async def adopt(self, user: UserKey, revision: Revision) -> None:
        """Runs the commit's script without a lease and without events."""
        await self._commit(user, revision, ["", ""], [])

    async def _commit(self, user: UserKey, revision: Revision, owner: list[Argument], events: list[str]) -> Any:
        own = self._keys.user(user)
        keys = [own.partition.lease, own.partition.events, own.state, own.pending, own.lineage, own.records]
        keys += [own.ids, own.older_ids, own.partition.users]
        made: list[Argument] = [revision.name, revision.parent, encode_revision(revision)]
        bounds: list[Argument] = [self._revisions_kept, self._ids_ttl]
        reply = await _COMMIT.run(self._client, keys, [*owner, GROUP, *made, *bounds, user_entry(user), *events])
        outcome, _, removed = reply.partition(b" ")
        metrics.QUOTA_EFFECTS.labels("revisions", "removed").inc(int(removed or 0))
        if outcome == b"deleted":
            raise user_deleted()
        if outcome == b"conflict":
            raise LineageConflict(f"the pointer is not {revision.parent or 'the base'} any more")
        if outcome == b"stale":
            raise LineageConflict("the events are not the user's oldest unapplied ones")
        if outcome not in (b"done", b"fenced"):
            raise damaged("the outcome of a commit is none of those that there are")
        return outcome

    @override
    async def bury(self, lease: Lease, events: Sequence[LoggedEvent], reason: str) -> None:
        """Skips events that are not in the stream any more."""
        partition = self._keys.partitions[lease.partition]
        keys = [partition.events, partition.dead]
        for event in events:
            own = self._keys.user(event.user)
            keys += [own.state, own.pending, own.letters, own.ids, own.older_ids]
        await self._owned(_BURY, lease, keys, [GROUP, reason, self._ids_ttl, *_entry_ids(events)])

    @override
    async def stats(self, partition: int) -> PartitionStats:
        """Computes the age by Redis' clock."""
        keys = self._keys.partitions[partition]
        backlog, age, dead = await _STATS.run(self._client, [keys.events, keys.dead])
        return PartitionStats(backlog, age / 1000, dead)

    @override
    async def dead_letters(self, partition: int, limit: int = 100, after: str = "") -> list[DeadLetter]:
        return await self._letters(partition, f"({after}" if after else "-", "+", limit)

    @override
    async def dead_letter(self, partition: int, letter_id: str) -> DeadLetter | None:
        if not is_entry_id(letter_id):
            return None
        return next(iter(await self._letters(partition, letter_id, letter_id, 1)), None)

    @override
    async def retry_dead_letter(self, letter: DeadLetter) -> bool:
        """Gives the event a new sequence, by which its id is known from then on, and resets its attempts to 0."""
        keys = self._keys.user(letter.event.user)
        call = keys.partition.call(secrets.token_hex(16))
        script_keys = [keys.partition.events, keys.partition.dead, keys.state, keys.pending, keys.letters, call]
        script_keys += [keys.ids, keys.older_ids]
        return bool(await _RETRY_LETTER.run(self._client, script_keys, [letter.letter_id, CALL_TTL]))

    @override
    async def drop_dead_letter(self, letter: DeadLetter) -> bool:
        """The event id stays known, so that a late retry of the caller does not bring it back."""
        keys = self._keys.user(letter.event.user)
        script_keys = [keys.partition.dead, keys.state, keys.letters, keys.partition.call(secrets.token_hex(16))]
        return bool(await _DROP_LETTER.run(self._client, script_keys, [letter.letter_id, CALL_TTL]))

    @override
    async def heartbeat(self, member: str, seconds: float) -> list[str]:
        members = await _HEARTBEAT.run(self._client, [self._keys.members], [member, _milliseconds(seconds)])
        return sorted(name.decode() for name in members)

    @override
    async def close(self) -> None:
        await self._client.aclose()

    async def _letters(self, partition: int, first: str, last: str, limit: int) -> list[DeadLetter]:
        entries = await call(self._client, "XRANGE", self._keys.partitions[partition].dead, first, last, "COUNT", limit)
        return [decode_letter(partition, letter_id, values) for letter_id, values in entries]

    async def _owned(self, script: Script, lease: Lease, keys: Sequence[str], arguments: Sequence[Argument]) -> Any:
        """Runs a script that first checks the lease. Raises Fenced when its epoch is over."""
        lease_key = self._keys.partitions[lease.partition].lease
        reply = await script.run(self._client, [lease_key, *keys], [lease.owner, lease.epoch, *arguments])
        if reply is None:
            raise _fenced(lease)
        return reply


def _fenced(lease: Lease) -> Fenced:
    return Fenced(f"epoch {lease.epoch} of partition {lease.partition} is over")


def _entry_ids(events: Sequence[LoggedEvent]) -> list[str]:
    return [event.entry_id for event in events]


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))
