"""Fixtures of the state rooms: the same tests run over memory and over a real redis-server."""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from papa_serving.attribution import open_activity
from papa_serving.attribution.memory import MemoryActivityLog
from papa_serving.contracts.attribution import ActivityLog
from papa_serving.contracts.errors import ItemNotFound
from papa_serving.contracts.feedback import FeedbackEvent, FeedbackLog, Lease, LoggedEvent, UserBatch
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.items import ItemStore, StoredItem
from papa_serving.contracts.recommending import SeenItems
from papa_serving.contracts.revisions import Revision, RevisionStore, UserDirectory, UserState, revision_name
from papa_serving.feedback import open_log
from papa_serving.feedback.memory import MemoryFeedbackLog
from papa_serving.local.redis_process import RedisProcess
from papa_serving.settings import FeedbackSettings, RedisSettings, Settings, StoreSettings
from papa_serving.store import open_items, open_revisions, open_seen, open_users
from papa_serving.store.census import Kind, census
from papa_serving.store.memory import MemoryItemStore, MemorySeenItems, MemoryState, MemoryUserDirectory
from redis.asyncio import Redis

from tests.store.redis_nodes import RedisClusterNodes

PARTITIONS = 4

SOON = 5.0
"""Seconds that a notification may take: far below LONGEST_SILENCE, so that no re-read can stand in for it."""


@dataclass
class Backend:
    """The three stores over one state, and shorthands that tests read by."""

    settings: Settings
    log: FeedbackLog
    users: UserDirectory
    items: ItemStore
    activity: ActivityLog
    seen: SeenItems

    async def close(self) -> None:
        await self.log.close()
        await self.users.close()
        await self.items.close()
        await self.activity.close()
        await self.seen.close()

    async def own(self, user: UserKey, owner: str = "trainer", seconds: float = 30.0) -> Lease:
        lease = await self.log.acquire(user.partition(PARTITIONS), owner, seconds)
        assert lease is not None
        return lease

    async def append(self, user: UserKey, *event_ids: str) -> None:
        results = await self.log.append([image_event(user, event_id) for event_id in event_ids])
        assert [result.error for result in results] == [None] * len(event_ids)

    async def pending(self, lease: Lease, user: UserKey | None = None) -> tuple[LoggedEvent, ...]:
        events = await self.log.read(lease, "", 10_000)
        return tuple(event for event in events if user is None or event.user == user)

    async def commit(self, user: UserKey, number: int, parent: str = "", lease: Lease | None = None) -> Revision:
        """Applies all that the user has pending."""
        lease = lease or await self.own(user)
        batch = UserBatch(user, await self.pending(lease, user))
        revision = a_revision(number, parent, batch)
        assert await self.log.commit(lease, batch, revision)
        return revision

    async def until_expired(self, user: UserKey, item_id: str) -> None:
        with suppress(ItemNotFound):
            while await self.items.get(user, item_id):  # noqa: ASYNC110 - nobody tells of an expiry
                await asyncio.sleep(0.02)


def image_event(user: UserKey, event_id: str, grade: float = 1.0, image: bytes = b"picture") -> FeedbackEvent:
    return FeedbackEvent(event_id, user, grade, image=image)


def an_item(item_id: str, revision: str = "") -> StoredItem:
    return StoredItem(item_id, b"sample of " + item_id.encode(), revision, "generation", 7)


def a_revision(number: int, parent: str = "", batch: UserBatch | None = None) -> Revision:
    events = batch.events if batch is not None else ()
    sequences = [event.sequence for event in events] or [0]
    return Revision(
        f"{number:06d}-{number:08x}",
        parent,
        1.5,
        "ab" * 32,
        len(events),
        max(sequences),
        min(sequences),
        max(sequences),
    )


async def soon(states: AsyncIterator[UserState]) -> UserState:
    return await asyncio.wait_for(anext(states), SOON)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    with RedisProcess(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="session")
def redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisClusterNodes]:
    with RedisClusterNodes(tmp_path_factory.mktemp("cluster")) as nodes:
        yield nodes


@pytest.fixture
def user() -> UserKey:
    return UserKey("shop", "élise:{p00}/../x")


OpenBackend = Callable[..., Backend]


def redis_settings(url: str, data_dir: Path, **sections: Any) -> Settings:
    """Settings with the given sections, which are not checked against each other: a test's quotas may be tiny."""
    prefix = f"t{secrets.token_hex(6)}"
    sections.setdefault("feedback", FeedbackSettings(partitions=PARTITIONS))
    return Settings(redis=RedisSettings(url=url, prefix=prefix), data_dir=data_dir).model_copy(update=sections)


def event_id_quota(count: int, **others: Any) -> StoreSettings:
    """A quota that may be smaller than a deployment's can be."""
    return StoreSettings(**others).model_copy(update={"user_event_ids": count})


def open_redis(settings: Settings) -> Backend:
    stores = open_users(settings), open_items(settings), open_activity(settings), open_seen(settings)
    return Backend(settings, open_log(settings), *stores)


def _open_memory(settings: Settings) -> Backend:
    state = MemoryState(settings)
    stores = MemoryUserDirectory(state), MemoryItemStore(state), MemoryActivityLog(state), MemorySeenItems(state)
    return Backend(settings, MemoryFeedbackLog(state), *stores)


@pytest.fixture(params=["memory", "redis", "cluster"])
async def open_backend(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[OpenBackend]:
    """Opens empty backends with the given sections of the settings."""
    opened: list[Backend] = []
    servers = {"redis": "redis_server", "cluster": "redis_cluster"}
    url = request.getfixturevalue(servers[request.param]).url if request.param in servers else "redis://unused"

    def open_one(**sections: Any) -> Backend:
        settings = redis_settings(url, tmp_path, **sections)
        opened.append(open_redis(settings) if request.param in servers else _open_memory(settings))
        return opened[-1]

    yield open_one
    for backend in opened:
        await backend.close()


@pytest.fixture
def backend(open_backend: OpenBackend) -> Backend:
    return open_backend()


@pytest.fixture
async def redis_backend(redis_server: RedisProcess, tmp_path: Path) -> AsyncIterator[Backend]:
    backend = open_redis(redis_settings(redis_server.url, tmp_path))
    yield backend
    await backend.close()


@pytest.fixture
async def raw(redis_server: RedisProcess) -> AsyncIterator[Redis]:
    """A bare client of the test server, to look at what lies there."""
    async with Redis.from_url(redis_server.url, protocol=2) as client:
        yield client


class Served:
    """A backend on Redis, a revision store, and the small trainer."""

    def __init__(self, backend: Backend, raw: Redis) -> None:
        self.backend, self.raw = backend, raw
        self.revisions: RevisionStore = open_revisions(backend.settings)

    async def learn(self, user: UserKey, *event_ids: str) -> Revision:
        """One revision, with files and commit."""
        await self.backend.append(user, *event_ids)
        lease = await self.backend.own(user)
        batch = UserBatch(user, await self.backend.pending(lease, user))
        revision = await self.write(user, batch)
        await self.backend.log.commit(lease, batch, revision)
        return revision

    async def write(self, user: UserKey, batch: UserBatch) -> Revision:
        """Writes the files of a revision, as a trainer does before the commit."""
        state = await self.backend.users.get(user)
        parent = state.current.name if state.current else ""
        manifest = {
            "parent": parent,
            "created_at": batch.events[-1].accepted_at,
            "events": [event.event_id for event in batch.events],
            "first_sequence": batch.events[0].sequence,
            "last_sequence": batch.events[-1].sequence,
        }
        text = json.dumps(manifest).encode()
        sha256 = hashlib.sha256(text).hexdigest()
        before = state.current.events_total if state.current else 0
        revision = Revision(
            revision_name(state.revisions + 1, sha256), parent, batch.events[-1].accepted_at, sha256, len(batch.events),
            before + len(batch.events), batch.events[0].sequence, batch.events[-1].sequence,
            batch.events[-1].accepted_at,
        )  # fmt: skip
        await self.revisions.put(user, revision.name, {"manifest.json": text})
        return revision

    async def orphan(self, user: UserKey, *event_ids: str) -> Revision:
        """A trainer that was killed between the files and the commit."""
        await self.backend.append(user, *event_ids)
        return await self.write(user, UserBatch(user, await self.backend.pending(await self.backend.own(user), user)))

    async def found(self) -> dict[str, tuple[Kind, set[str]]]:
        return {f.digest: (f.kind, set(f.revisions)) async for f in census(self.backend.users, self.revisions)}

    async def held(self, user: UserKey) -> set[str]:
        return {name async for holding in self.revisions.holdings(user.digest) for name in holding.revisions}

    async def forget(self, user: UserKey) -> None:
        """Redis loses everything that it knows of a user."""
        async for key in self.raw.scan_iter(match=f"{self.backend.settings.redis.prefix}:*user:{user.digest}*"):
            await self.raw.delete(key)
