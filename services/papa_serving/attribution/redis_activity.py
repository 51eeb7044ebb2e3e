"""What users were shown and did, on Redis: two bounded streams per user."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from typing_extensions import override

from papa_serving.contracts.attribution import ActivityLog, Kind, Record
from papa_serving.contracts.identity import UserKey
from papa_serving.settings import AttributionSettings
from papa_serving.store.redis_client import Client, call
from papa_serving.store.redis_keys import Keys, UserKeys
from papa_serving.store.redis_replies import checked_replies
from papa_serving.store.redis_scripts import load

_ADD = load(__package__, "add_record", int)


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
    async def kept(self, user: UserKey, kind: Kind) -> Sequence[Record]:
        """Leaves out what has outlived its time by this machine's clock; Redis removes it with the next entry."""
        since = max(0, round(time.time() * 1000) - self._ttl)
        entries = await call(self._client, "XRANGE", _stream(self._keys.user(user), kind), since, "+")
        return [_record(entry_id, fields) for entry_id, fields in entries]

    @override
    async def close(self) -> None:
        await self._client.aclose()


def _stream(keys: UserKeys, kind: Kind) -> str:
    return keys.impressions if kind == "impression" else keys.attributed


def _record(entry_id: bytes, fields: Mapping[bytes, bytes]) -> Record:
    return Record(int(entry_id.partition(b"-")[0]) / 1000, fields[b"d"])
