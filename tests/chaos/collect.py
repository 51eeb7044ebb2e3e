"""Reads the final state from Redis and the revision store without the product's own code."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from pathlib import Path

from papa_serving.contracts.identity import UserKey
from papa_serving.store.redis_keys import Keys
from redis.asyncio import Redis

from tests.chaos.history import Applied, Final, Left
from tests.chaos.updater import MANIFEST


async def collect(client: Redis, keys: Keys, store: Path, users: list[UserKey], *, settled: bool) -> Final:
    """Everything about these users."""
    pending, letters = defaultdict[str, list[str]](list), defaultdict[str, list[str]](list)
    for partition in keys.partitions:
        for stream, found in ((partition.events, pending), (partition.dead, letters)):
            for _, fields in await client.xrange(stream):
                found[fields[b"u"].decode()].append(fields[b"e"].decode())
    return Final({user.user: await _left(client, keys, store, user, pending, letters) for user in users}, settled)


async def _left(
    client: Redis, keys: Keys, store: Path, user: UserKey, pending: dict[str, list[str]], letters: dict[str, list[str]]
) -> Left:
    own = keys.user(user)
    state = {name.decode(): value.decode() for name, value in (await client.hgetall(own.state)).items()}
    records = [json.loads(each) for each in await client.hmget(own.records, names)] if (
        names := await client.zrange(own.lineage, 0, -1)
    ) else []  # fmt: skip
    folder = store / user.digest[:2] / user.digest
    return Left(
        deleted="deleted" in state,
        current=state.get("current", ""),
        lineage=tuple(_applied(folder, record) for record in records),
        pending=tuple(pending.get(user.user, ())),
        letters=tuple(letters.get(user.user, ())),
        files=frozenset(each.name for each in folder.iterdir()) if folder.is_dir() else frozenset(),
        accepted=int(state.get("likes", 0)) + int(state.get("dislikes", 0)),
        counted_pending=int(state.get("pending", 0)),
        counted_letters=int(state.get("dead", 0)),
    )


def _applied(folder: Path, record: dict[str, str | int]) -> Applied:
    path = folder / str(record["revision"]) / MANIFEST
    text = path.read_bytes() if path.is_file() else b"{}"
    manifest = json.loads(text)
    learned = manifest.get("learned")
    return Applied(
        revision=str(record["revision"]),
        parent=str(record["parent"]),
        first_sequence=int(record["first_sequence"]),
        last_sequence=int(record["last_sequence"]),
        whole=hashlib.sha256(text).hexdigest() == record["sha256"],
        manifest_parent=manifest.get("parent", ""),
        events=tuple(manifest.get("events", ())),
        learned=None if learned is None else tuple(learned),
    )
