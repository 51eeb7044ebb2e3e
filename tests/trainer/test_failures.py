"""What goes wrong for one event or one user, and that it goes wrong for no other."""

from collections.abc import Mapping, Sequence
from itertools import chain

import pytest
from papa_serving.contracts.errors import StorageDamaged, StorageUnavailable
from papa_serving.contracts.feedback import Lease, UserBatch
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.revisions import Revision
from papa_serving.store.redis_keys import Keys
from papa_serving.trainer.updater import UserUpdate
from redis.asyncio import Redis

from tests.trainer.support import PARTITIONS, TallyUpdater, World, event_ids, until


def contains(update: UserUpdate, event_id: str) -> bool:
    return event_id in [event.event_id for event in update.batch.events]


async def test_a_sample_that_is_none_is_buried_at_once(world: World, user: UserKey) -> None:
    await world.say(user, "e1")
    await world.say(user, "bad", sample=b"flawed")
    await world.say(user, "e2")
    async with world.trainer(TallyUpdater()):
        await until(lambda: world.has_revisions(user, 1))
        await until(lambda: _buried(world, user, "bad"))
    assert await world.applied(user) == [["e1", "e2"]]
    (letter,) = await world.dead_letters(user)
    assert (letter.event.event_id, letter.reason, letter.event.attempts) == ("bad", "no picture", 0)


async def test_an_update_that_raises_costs_only_the_event_at_fault(world: World, users: list[UserKey]) -> None:
    def during(updates: Sequence[UserUpdate]) -> None:
        if any(contains(update, "bad") for update in updates):
            raise ArithmeticError("cannot learn this")

    victim, other = users[:2]
    await world.say(victim, "e1", "e2", "bad", "e3")
    await world.say(other, *event_ids(4))
    updater = TallyUpdater(during)
    async with world.trainer(updater, max_attempts=4):
        await until(lambda: _buried(world, victim, "bad"))
        await until(lambda: _applied(world, victim, 3))
        await until(lambda: _applied(world, other, 4))
    assert list(chain.from_iterable(await world.applied(victim))) == ["e1", "e2", "e3"]
    assert await world.applied(other) == [event_ids(4)]
    (letter,) = await world.dead_letters(victim)
    assert letter.event.attempts == 4
    assert letter.reason == "4 attempts failed: ArithmeticError: cannot learn this"
    assert await world.dead_letters(other) == []


async def test_a_refused_update_is_tried_again_alone_with_smaller_steps(world: World, users: list[UserKey]) -> None:
    updater = TallyUpdater(refuse=lambda update, scale: "too much" if scale > 0.5 and contains(update, "wild") else "")
    wild, calm = users[:2]
    await world.say(wild, "e1", "wild", "e2")
    await world.say(calm, *event_ids(3))
    async with world.trainer(updater):
        await until(lambda: world.has_revisions(wild, 1))
        await until(lambda: world.has_revisions(calm, 1))
    assert await world.applied(wild) == [["e1", "wild", "e2"]]
    newest = (await world.lineage(wild))[-1]
    assert (await world.manifest(wild, newest.name))["step_scale"] == 0.5
    assert (await world.manifest(calm, (await world.lineage(calm))[-1].name))["step_scale"] == 1.0


async def test_what_the_gate_always_refuses_is_kept_and_then_buried_with_the_reason(
    world: World, user: UserKey
) -> None:
    updater = TallyUpdater(refuse=lambda update, scale: "one grey" if contains(update, "wild") else "")
    await world.say(user, "e1", "wild", "e2")
    async with world.trainer(updater, max_attempts=4):
        await until(lambda: _buried(world, user, "wild"))
        await until(lambda: _applied(world, user, 2))
    assert list(chain.from_iterable(await world.applied(user))) == ["e1", "e2"]
    (letter,) = await world.dead_letters(user)
    assert letter.reason == "4 attempts failed: test: one grey"
    scales = [scale for updates, scale in updater.updates if any(contains(update, "wild") for update in updates)]
    assert scales == sorted(scales, reverse=True)
    assert scales[-1] < 0.3


async def test_a_full_store_counts_against_no_event(
    world: World, user: UserKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("papa_serving.trainer.training.STORAGE_PAUSE", 0.01)
    put, refusals = world.revisions.put, [StorageUnavailable("disk full")] * 12

    async def full(user: UserKey, revision: str, files: Mapping[str, bytes]) -> None:
        if refusals:
            raise refusals.pop()
        await put(user, revision, files)

    monkeypatch.setattr(world.revisions, "put", full)
    await world.say(user, *event_ids(3))
    async with world.trainer(TallyUpdater(), max_attempts=3):
        await until(lambda: world.has_revisions(user, 1))
    assert await world.applied(user) == [event_ids(3)]
    assert await world.dead_letters(user) == []


async def test_a_commit_whose_answers_are_lost_is_made_once(
    world: World, user: UserKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, losses, sent = world.log.commit, [StorageUnavailable("no reply")] * 3, []

    async def lossy(lease: Lease, batch: UserBatch, revision: Revision) -> bool:
        sent.append(revision)
        done = await commit(lease, batch, revision)
        if losses:
            raise losses.pop()
        return done

    monkeypatch.setattr(world.log, "commit", lossy)
    await world.say(user, *event_ids(3))
    updater = TallyUpdater()
    async with world.trainer(updater):
        await until(lambda: _sent(sent, 4))
        await world.say(user, *event_ids(3, start=4))
        await until(lambda: world.has_revisions(user, 2))
    assert await world.applied(user) == [event_ids(3), event_ids(3, start=4)]
    assert len(set(sent[:4])) == 1
    assert len(updater.updates) == 2


async def test_damaged_data_of_one_user_stop_that_user_alone(
    world: World, users: list[UserKey], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("papa_serving.trainer.training.REPAIR_PAUSE", 0.01)
    victim, other = users[:2]
    commit = world.log.commit

    async def damaged(lease: Lease, batch: UserBatch, revision: Revision) -> bool:
        if batch.user == victim:
            raise StorageDamaged("a key of another type")
        return await commit(lease, batch, revision)

    monkeypatch.setattr(world.log, "commit", damaged)
    await world.say(victim, "e1")
    await world.say(other, *event_ids(3))
    async with world.trainer(TallyUpdater(), max_attempts=3):
        await until(lambda: _buried(world, victim, "e1"))
        await until(lambda: world.has_revisions(other, 1))
    (letter,) = await world.dead_letters(victim)
    assert letter.event.attempts == 3
    assert letter.reason == "3 attempts failed: STORAGE_DAMAGED: a key of another type"


@pytest.mark.parametrize("damage", ["an entry that is no event", "a key of another type"])
async def test_a_stream_that_cannot_be_read_stops_its_partition_alone(
    redis_world: World, users: list[UserKey], caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    victim, other = users[0], next(user for user in users if _partition(user) != _partition(users[0]))
    async with Redis.from_url(redis_world.settings.redis.url, protocol=2) as client:
        keys = Keys(redis_world.settings.redis.prefix, PARTITIONS)
        if damage == "a key of another type":
            await client.set(keys.user(victim).partition.events, "of another program")
        else:
            await client.xadd(keys.user(victim).partition.events, {"not": "an event"})
    await redis_world.say(other, *event_ids(3))
    async with redis_world.trainer(TallyUpdater()):
        await until(lambda: redis_world.has_revisions(other, 1))
    assert "a partition cannot be read" in caplog.text


def _partition(user: UserKey) -> int:
    return user.partition(PARTITIONS)


async def _buried(world: World, user: UserKey, event_id: str) -> bool:
    return event_id in [letter.event.event_id for letter in await world.dead_letters(user)]


async def _applied(world: World, user: UserKey, count: int) -> bool:
    return len(list(chain.from_iterable(await world.applied(user)))) == count


async def _sent(sent: list[Revision], count: int) -> bool:
    return len(sent) >= count
