"""What users were shown and did, on Redis: two bounded streams per user."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from redis.exceptions import RedisError
from typing_extensions import override

from papa_serving.contracts.attribution import MEASURES, SUMMED, ActivityLog, ArmSums, Count, Kind, Record, arm_sums
from papa_serving.contracts.identity import UserKey
from papa_serving.settings import AttributionSettings
from papa_serving.store.redis_client import Argument, Client, call, call_all, unavailable
from papa_serving.store.redis_keys import Keys, UserKeys
from papa_serving.store.redis_replies import checked_replies
from papa_serving.store.redis_scripts import load

_ADD = load(__package__, "add_record", int)
_MERGE = load(__package__, "merge_records", int)
_COUNT = load(__package__, "count", int)


@checked_replies()
class RedisActivityLog(ActivityLog):
    """Adds records by a script, which keeps them within their bounds. append.lua adds events in the same way."""

    def __init__(self, client: Client, keys: Keys, settings: AttributionSettings) -> None:
        self._client, self._keys = client, keys
        self._most: dict[Kind, int] = {"impression": settings.impressions, "event": settings.events}
        self._ttl = max(1, round(settings.ttl * 1000))

    @override
    async def add(self, user: UserKey, kind: Kind, data: bytes) -> None:
        keys = self._keys.user(user)
        await _ADD.run(self._client, [keys.state, _stream(keys, kind)], [self._most[kind], self._ttl, data])

    @override
    async def merge(self, user: UserKey, kind: Kind, records: Sequence[Record]) -> None:
        keys = self._keys.user(user)
        arguments: list[Argument] = [self._most[kind], self._ttl]
        for record in records:
            arguments += [round(record.at * 1000), record.data]
        await _MERGE.run(self._client, [keys.state, _stream(keys, kind)], arguments)

    @override
    async def kept(self, user: UserKey, kind: Kind) -> Sequence[Record]:
        """Leaves out what has outlived its time by this machine's clock; Redis removes it with the next entry."""
        since = max(0, round(time.time() * 1000) - self._ttl)
        entries = await call(self._client, "XRANGE", _stream(self._keys.user(user), kind), since, "+")
        return [_record(entry_id, fields) for entry_id, fields in entries]

    @override
    async def count(self, user: UserKey, counts: Mapping[str, Count]) -> None:
        keys = self._keys.user(user)
        sums = keys.partition.sums(user.tenant), keys.partition.sums()
        arguments: list[Argument] = [self._ttl]
        for arm, new in counts.items():
            arguments += [arm, new.shown, *(getattr(new, measure) for measure in MEASURES)]
        await _COUNT.run(self._client, [keys.state, keys.counts, *sums], arguments)

    @override
    async def sums(self, tenant: str, arms: Sequence[str]) -> Sequence[ArmSums]:
        """Reads the fields of these arms from every partition, together."""
        fields = [f"{arm} {what}" for arm in arms for what in SUMMED]
        if not fields:
            return []
        keys = [partition.sums(tenant) for partition in self._keys.partitions]
        replies = await call_all(self._client, [("HMGET", key, *fields) for key in keys])
        totals = [0] * len(fields)
        for reply in replies:
            if isinstance(reply, RedisError):
                raise unavailable(reply)
            totals = [total + int(value or 0) for total, value in zip(totals, reply, strict=True)]
        size = len(SUMMED)
        return [arm_sums(totals[at : at + size]) for at in range(0, len(totals), size)]

    @override
    async def close(self) -> None:
        await self._client.aclose()


def _stream(keys: UserKeys, kind: Kind) -> str:
    return keys.impressions if kind == "impression" else keys.attributed


def _record(entry_id: bytes, fields: Mapping[bytes, bytes]) -> Record:
    return Record(int(entry_id.partition(b"-")[0]) / 1000, fields[b"d"])
