"""Every write is sent again when its reply is lost, and has the effect of one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from papa_serving.contracts.errors import StorageUnavailable, UserDeleted
from papa_serving.contracts.feedback import AppendResult, FeedbackEvent, Lease, UserBatch
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.revisions import DeletionReceipt
from papa_serving.local.redis_process import RedisProcess
from papa_serving.settings import Settings
from redis.asyncio import Redis

from tests.store.losing_proxy import LosingProxy
from tests.store.support import PARTITIONS, Backend, a_revision, an_item, image_event, open_redis, redis_settings


@pytest.fixture
async def proxy(redis_server: RedisProcess) -> AsyncIterator[LosingProxy]:
    async with LosingProxy(unquote(redis_server.url.removeprefix("unix://"))) as proxy:
        yield proxy


@pytest.fixture(autouse=True)
async def scripts_are_known(raw: Redis) -> None:
    """Loads the scripts, so that each call is one command."""
    for package in ("papa_serving.feedback", "papa_serving.store"):
        for file in resources.files(package).joinpath("lua").iterdir():
            await raw.script_load(file.read_bytes())


Call = Callable[[Backend], Awaitable[Any]]
Write = Callable[[Backend, UserKey], Awaitable[Call]]
"""Looks up what it needs and returns the one call to make, through whichever backend."""


async def append(direct: Backend, user: UserKey) -> Call:
    events = [FeedbackEvent("c", user, 1.0, item_id="i1"), image_event(user, "d", -1.0), image_event(user, "a")]
    return lambda by: by.log.append(events)


async def acquire(direct: Backend, user: UserKey) -> Call:
    return lambda by: by.log.acquire((user.partition(PARTITIONS) + 1) % PARTITIONS, "somebody", 30)


async def renew(direct: Backend, user: UserKey) -> Call:
    lease = await direct.own(user)
    return lambda by: by.log.renew(lease, 60)


async def release(direct: Backend, user: UserKey) -> Call:
    lease = await direct.own(user)
    return lambda by: by.log.release(lease)


async def begin_attempt(direct: Backend, user: UserKey) -> Call:
    lease = await direct.own(user)
    batch = UserBatch(user, await direct.pending(lease))
    return lambda by: by.log.begin_attempt(lease, batch)


async def commit(direct: Backend, user: UserKey) -> Call:
    lease = await direct.own(user)
    batch = UserBatch(user, await direct.pending(lease))
    return lambda by: by.log.commit(lease, batch, a_revision(2, a_revision(1).name, batch))


async def bury(direct: Backend, user: UserKey) -> Call:
    lease = await direct.own(user)
    events = await direct.pending(lease)
    return lambda by: by.log.bury(lease, events, "poison too")


async def retry_dead_letter(direct: Backend, user: UserKey) -> Call:
    (letter,) = await direct.log.dead_letters(user.partition(PARTITIONS))
    return lambda by: by.log.retry_dead_letter(letter)


async def drop_dead_letter(direct: Backend, user: UserKey) -> Call:
    (letter,) = await direct.log.dead_letters(user.partition(PARTITIONS))
    return lambda by: by.log.drop_dead_letter(letter)


async def heartbeat(direct: Backend, user: UserKey) -> Call:
    return lambda by: by.log.heartbeat("trainer", 30)


async def put_items(direct: Backend, user: UserKey) -> Call:
    return lambda by: by.items.put(user, [an_item("i2")])


async def rollback(direct: Backend, user: UserKey) -> Call:
    await direct.users.reset(user)
    return lambda by: by.users.rollback(user, a_revision(1).name)


async def reset(direct: Backend, user: UserKey) -> Call:
    return lambda by: by.users.reset(user)


async def delete(direct: Backend, user: UserKey) -> Call:
    return lambda by: by.users.delete(user)


WRITES: tuple[Write, ...] = (
    append, acquire, renew, release, begin_attempt, commit, bury, retry_dead_letter, drop_dead_letter, heartbeat,
    put_items, rollback, reset, delete,
)  # fmt: skip


async def prepare(direct: Backend, user: UserKey) -> None:
    """A user with a revision, a dead letter, an item and two events that wait."""
    await direct.items.put(user, [an_item("i1")])
    await direct.append(user, "first")
    await direct.commit(user, 1)
    await direct.append(user, "poison", "a", "b")
    lease = await direct.own(user)
    await direct.log.bury(lease, (await direct.pending(lease))[:1], "poison")


async def warm_up(through: Backend, user: UserKey) -> None:
    """Opens the connections, so that what gets lost is the reply to the write."""
    for look in (lambda: through.log.stats(0), lambda: through.users.get(user), lambda: through.items.get(user, "i1")):
        opened = False
        while not opened:
            with suppress(StorageUnavailable):  # the time-out is short, and the machine may be busy
                await look()
                opened = True


def seen(answer: Any) -> Any:
    """An answer without what differs between any two runs: ids, times, and that a retry is called a duplicate."""
    match answer:
        case list():
            return [seen(part) for part in answer]
        case AppendResult():
            return answer.event_id, answer.sequence, answer.error
        case Lease():
            return answer.partition, answer.owner, answer.epoch
        case DeletionReceipt():
            return replace(answer, receipt_id="", deleted_at=0.0)
    return answer


async def everything(direct: Backend, user: UserKey) -> Any:
    partition = user.partition(PARTITIONS)
    owner = await direct.log.acquire(partition, "trainer", 30)
    assert owner is not None
    events = [(e.event_id, e.sequence, e.grade, e.sample, e.attempts) for e in await direct.pending(owner)]
    letters = [(letter.event.event_id, letter.reason) for letter in await direct.log.dead_letters(partition)]
    try:
        state: Any = await direct.users.get(user)
    except UserDeleted:
        state = "deleted"
    return owner.epoch, events, letters, state, await direct.users.lineage(user, 10)


@pytest.mark.parametrize("write", WRITES, ids=lambda write: write.__name__)
async def test_a_write_that_is_sent_again_has_the_effect_of_one(
    write: Write, proxy: LosingProxy, redis_server: RedisProcess, raw: Redis, user: UserKey, tmp_path: Path
) -> None:
    outcomes = []
    for lost in (0, 1):
        settings = redis_settings(redis_server.url, tmp_path)
        direct, through = open_redis(settings), open_redis(by_way_of(proxy, settings))
        await prepare(direct, user)
        await warm_up(through, user)
        call = await write(direct, user)
        await raw.config_resetstat()
        proxy.lose(lost)
        answer = await call(through)
        executed = (await raw.info("commandstats"))["cmdstat_evalsha"]["calls"]
        assert (proxy.lost, executed) == (lost, lost + 1)
        outcomes.append((seen(answer), await everything(direct, user)))
        await direct.close()
        await through.close()
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("write", [append, commit, bury, put_items, delete], ids=lambda write: write.__name__)
async def test_a_write_whose_reply_never_comes_may_be_repeated_by_the_caller(
    write: Write, proxy: LosingProxy, redis_server: RedisProcess, user: UserKey, tmp_path: Path
) -> None:
    outcomes = []
    for lost in (0, 1):
        settings = redis_settings(redis_server.url, tmp_path)
        direct, through = open_redis(settings), open_redis(by_way_of(proxy, settings, socket_timeout=1.0))
        await prepare(direct, user)
        await warm_up(through, user)
        call = await write(direct, user)
        proxy.lose(lost, silently=True)
        if lost:
            with pytest.raises(StorageUnavailable):
                await call(through)
        outcomes.append((seen(await call(direct)), await everything(direct, user)))
        await direct.close()
        await through.close()
    assert outcomes[0] == outcomes[1]


def by_way_of(proxy: LosingProxy, settings: Settings, **redis: float) -> Settings:
    return settings.model_copy(update={"redis": settings.redis.model_copy(update={"url": proxy.url, **redis})})
