"""A Redis that answers wrong types, replies without end, halves of replies, and noise."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest
from papa_serving.contracts.errors import PapaError, Status, StorageDamaged, StorageUnavailable
from papa_serving.contracts.feedback import Lease, LoggedEvent, UserBatch
from papa_serving.contracts.identity import UserKey
from papa_serving.settings import FeedbackSettings, RedisSettings, Settings
from papa_serving.store import redis_replies
from papa_serving.store.redis_client import call
from papa_serving.trainer.process import check_backbone
from redis.asyncio import Redis
from typing_extensions import override

from tests.store.losing_proxy import LosingProxy
from tests.store.lying_server import LIES, LyingServer
from tests.store.support import Backend, a_revision, an_item, image_event, open_redis

ALICE = UserKey("shop", "alice")
LEASE = Lease(ALICE.partition(4), "trainer", 1, 30.0)
EVENT = LoggedEvent("1-1", 1, "e", ALICE, 1.0, b"sample", "", 0.0)


def settings_of(url: str, prefix: str = "papa") -> Settings:
    redis = RedisSettings(url=url, prefix=prefix, socket_timeout=0.4)
    return Settings(redis=redis, feedback=FeedbackSettings(partitions=4))


@asynccontextmanager
async def believing(url: str, prefix: str = "papa") -> AsyncIterator[Backend]:
    backend = open_redis(settings_of(url, prefix))
    try:
        yield backend
    finally:
        await backend.close()


def calls(told: Backend) -> dict[str, Callable[[], Awaitable[object]]]:
    """Whatever the gateway, a trainer and a generator ask of Redis."""
    batch, revision = UserBatch(ALICE, (EVENT,)), a_revision(1)
    log, users, items = told.log, told.users, told.items
    return {
        "append": lambda: log.append([image_event(ALICE, "e")]),
        "acquire": lambda: log.acquire(LEASE.partition, "trainer", 30.0),
        "renew": lambda: log.renew(LEASE, 30.0),
        "release": lambda: log.release(LEASE),
        "read": lambda: log.read(LEASE, "", 10),
        "pending": lambda: log.pending(ALICE),
        "news": lambda: log.news({0: "", 1: "1-1"}),
        "begin_attempt": lambda: log.begin_attempt(LEASE, batch),
        "commit": lambda: log.commit(LEASE, batch, revision),
        "adopt": lambda: log.adopt(ALICE, revision),
        "bury": lambda: log.bury(LEASE, [EVENT], "poison"),
        "stats": lambda: log.stats(0),
        "dead_letters": lambda: log.dead_letters(0),
        "heartbeat": lambda: log.heartbeat("trainer", 10.0),
        "get": lambda: users.get(ALICE),
        "current": lambda: users.current(ALICE),
        "revision": lambda: users.revision(ALICE, revision.name),
        "lineage": lambda: users.lineage(ALICE, 10),
        "rollback": lambda: users.rollback(ALICE, revision.name),
        "reset": lambda: users.reset(ALICE),
        "begin_merge": lambda: users.begin_merge(ALICE, UserKey("shop", "bob")),
        "delete": lambda: users.delete(ALICE),
        "standing": lambda: users.standing(ALICE.digest),
        "restore": lambda: users.restore(ALICE.digest, [revision], ["e"]),
        "put": lambda: items.put(ALICE, [an_item("i")]),
        "item": lambda: items.get(ALICE, "i"),
        "items": lambda: items.of_user(ALICE),
        "backbone_info": items.backbone_info,
    }


async def outcome(ask: Callable[[], Awaitable[object]]) -> object:
    try:
        return await ask()
    except PapaError as error:
        return error


@pytest.mark.parametrize("lie", LIES)
async def test_every_call_ends_in_an_answer_or_a_typed_error(lie: str) -> None:
    async with LyingServer(LIES[lie]) as server, believing(server.url) as told:
        asked = calls(told)
        ended = dict(zip(asked, await asyncio.gather(*map(outcome, asked.values())), strict=True))
    errors = [end for end in ended.values() if isinstance(end, PapaError)]
    assert not [each for each in errors if each.status is Status.INTERNAL]
    # What would be believed: that an event is kept, that a revision is current.
    for what in ("append", "commit", "adopt"):
        assert isinstance(ended[what], StorageUnavailable), what


async def test_a_trainer_does_not_wait_for_a_liar() -> None:
    async with LyingServer(LIES["a text"]) as server:
        with pytest.raises(StorageDamaged):
            await asyncio.wait_for(check_backbone(settings_of(server.url), "a hash"), 10)


async def test_a_reply_is_refused_before_it_fills_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_replies, "MAX_REPLY_BYTES", 2**20)
    endless = b"*2147483647\r\n" + b":1\r\n" * 40_000
    for lie in (endless, b"*9\r\n" + (b"$200000\r\n" + b"x" * 200_000 + b"\r\n") * 9, b"$1048576\r\n" + b"x" * 2**16):
        async with LyingServer(lie) as server, believing(server.url) as told:
            with pytest.raises(StorageUnavailable, match="more than 1048576 bytes"):
                await told.users.get(ALICE)


async def test_a_damaged_record_is_one_users_and_says_so(redis_backend: Backend) -> None:
    revision = await _with_a_revision(redis_backend)
    client = Redis.from_url(redis_backend.settings.redis.url, protocol=2)
    keys = [key async for key in client.scan_iter(f"{redis_backend.settings.redis.prefix}:*:user:*", _type="hash")]
    (state,) = [key for key in keys if await client.hget(key, "record")]
    for record in (b"{", b"[]", b"null", b'{"revision": 7}', b"\xff\xfe", b'"' + b"x" * 100_000):
        await client.hset(state, "record", record)
        with pytest.raises(StorageDamaged) as refused:
            await redis_backend.users.get(ALICE)
        assert refused.value.status is Status.DATA_LOSS
        assert len(refused.value.message) < 400
    assert (await redis_backend.users.revision(ALICE, revision)).name == revision
    assert (await redis_backend.users.get(UserKey("shop", "bob"))).likes == 0
    await client.aclose()


async def test_a_key_of_another_type_is_damage(redis_backend: Backend) -> None:
    client = Redis.from_url(redis_backend.settings.redis.url, protocol=2)
    await redis_backend.append(ALICE, "e")
    keys = [key async for key in client.scan_iter(f"{redis_backend.settings.redis.prefix}:*:ids")]
    await client.set(keys[0], b"a text")
    with pytest.raises(StorageDamaged, match="WRONGTYPE"):
        await call(client, "HGETALL", keys[0])
    await client.aclose()


async def _with_a_revision(backend: Backend) -> str:
    await backend.append(ALICE, "first")
    return (await backend.commit(ALICE, 1)).name


class TwistingProxy(LosingProxy):
    """Redis carries everything out, and every second reply is another than it gave."""

    def __init__(self, socket_path: str) -> None:
        super().__init__(socket_path)
        self._lies = itertools.cycle([b"", LIES["a text"], b"", LIES["done"], b"", LIES["more answers than questions"]])

    @override
    async def _bring_back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(2**16):
                writer.write(next(self._lies) or data)


async def test_what_is_acknowledged_through_a_liar_is_there_once(redis_backend: Backend) -> None:
    path = redis_backend.settings.redis.url.removeprefix("unix://").partition("?")[0]
    wanted = [f"event-{number}" for number in range(30)]
    async with TwistingProxy(path) as proxy, believing(proxy.url, redis_backend.settings.redis.prefix) as told:
        for event_id in wanted:
            while isinstance(
                await outcome(lambda each=event_id: told.log.append([image_event(ALICE, each)])), PapaError
            ):
                pass
    there = await redis_backend.pending(await redis_backend.own(ALICE), ALICE)
    assert [event.event_id for event in there] == wanted
