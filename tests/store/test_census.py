"""The revision store against Redis: orphans, what deleted users leave, and a Redis that was emptied or set back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from papa_serving.cli.app import run
from papa_serving.contracts.errors import StoreAhead
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.items import BackboneInfo
from papa_serving.local.redis_process import RedisProcess
from papa_serving.settings import StoreSettings, TrainerSettings
from papa_serving.settings.variables import in_environment, settings_environment
from papa_serving.store.census import Kind, refuse_ahead, refuse_emptied, repair, sweep
from redis.asyncio import Redis

from tests.store.support import PARTITIONS, Served, open_redis, redis_settings
from tests.trainer.support import TallyUpdater, World, until

ALICE, BOB = UserKey("shop", "alice"), UserKey("shop", "bob")
BACKBONE = BackboneInfo("ab" * 32, "name", (1, 8, 8))


@pytest.fixture
async def served(redis_server: RedisProcess, tmp_path: Path, raw: Redis) -> AsyncIterator[Served]:
    backend = open_redis(redis_settings(redis_server.url, tmp_path))
    yield Served(backend, raw)
    await backend.close()


async def test_nothing_is_found_where_all_is_well(served: Served) -> None:
    await served.learn(ALICE, "a")
    await served.learn(ALICE, "b")
    assert await served.found() == {}
    await refuse_ahead(served.backend.users, served.revisions, ALICE.digest)
    assert await sweep(served.backend.users, served.revisions, 0.0) == 0


async def test_an_orphan_is_swept_once_it_is_old_enough(served: Served) -> None:
    kept = await served.learn(ALICE, "a")
    orphan = await served.orphan(ALICE, "b")
    assert await served.found() == {ALICE.digest: (Kind.ORPHANS, {orphan.name})}
    assert await sweep(served.backend.users, served.revisions) == 0
    assert await sweep(served.backend.users, served.revisions, 0.0) == 1
    assert await served.held(ALICE) == {kept.name}


async def test_what_a_deleted_user_left_is_swept_at_once(served: Served) -> None:
    """Both by a gateway killed before it removed the files and by an update in flight that wrote them afterwards."""
    await served.learn(ALICE, "a")
    await served.orphan(ALICE, "b")
    await served.learn(BOB, "a")
    await served.backend.users.delete(ALICE)
    assert (await served.found())[ALICE.digest][0] is Kind.DELETED
    assert await sweep(served.backend.users, served.revisions) == 2
    assert await served.held(ALICE) == set()
    assert len(await served.held(BOB)) == 1
    assert await served.found() == {}


async def test_what_redis_lost_is_never_swept_and_never_started_over(served: Served) -> None:
    for event in "abc":
        await served.learn(ALICE, event)
    await served.forget(ALICE)
    assert (await served.found())[ALICE.digest][0] is Kind.LOST
    assert await sweep(served.backend.users, served.revisions, 0.0) == 0
    with pytest.raises(StoreAhead, match="papa store check"):
        await refuse_ahead(served.backend.users, served.revisions, ALICE.digest)


async def test_what_an_update_left_after_a_deletion_is_no_loss(served: Served) -> None:
    """Once the tombstone has expired: neither is the user brought back, nor a new one of that id refused."""
    for event in "abc":
        await served.learn(ALICE, event)
    orphan = await served.orphan(ALICE, "d")
    await served.forget(ALICE)
    for name in await served.held(ALICE) - {orphan.name}:
        await served.revisions.discard(ALICE.digest, name)
    assert (await served.found())[ALICE.digest][0] is Kind.ORPHANS
    assert await repair(served.backend.users, served.revisions) == 0
    await refuse_ahead(served.backend.users, served.revisions, ALICE.digest)


async def test_what_an_interrupted_deletion_left_is_no_loss(served: Served) -> None:
    made = [await served.learn(ALICE, event) for event in "abcd"]
    await served.forget(ALICE)
    await served.revisions.discard(ALICE.digest, made[1].name)
    assert (await served.found())[ALICE.digest][0] is Kind.ORPHANS
    assert await repair(served.backend.users, served.revisions) == 0


async def test_a_repair_puts_the_lineage_back(served: Served) -> None:
    lineage = [await served.learn(ALICE, *events) for events in ("ab", "c", "d")]
    before = await served.backend.users.get(ALICE)
    await served.forget(ALICE)
    assert await repair(served.backend.users, served.revisions) == 1
    after = await served.backend.users.get(ALICE)
    assert (after.current, after.revisions) == (before.current, before.revisions)
    assert await served.backend.users.lineage(ALICE, 9) == lineage[::-1]
    assert await served.found() == {}
    assert await repair(served.backend.users, served.revisions) == 0
    again = await served.learn(ALICE, "e")
    assert (again.parent, again.first_sequence) == (lineage[-1].name, 5)


async def test_revisions_beyond_the_quota_are_swept_and_the_others_repaired(
    redis_server: RedisProcess, tmp_path: Path, raw: Redis
) -> None:
    backend = open_redis(redis_settings(redis_server.url, tmp_path, store=StoreSettings(user_revisions=3)))
    served = Served(backend, raw)
    made = [await served.learn(ALICE, event) for event in "abcde"]
    assert await served.found() == {ALICE.digest: (Kind.ORPHANS, {made[0].name, made[1].name})}
    assert await sweep(backend.users, served.revisions, 0.0) == 2
    assert await served.held(ALICE) == {each.name for each in made[2:]}
    await served.forget(ALICE)
    assert await repair(backend.users, served.revisions) == 1
    assert [each.name for each in await backend.users.lineage(ALICE, 9)] == [each.name for each in made[:1:-1]]
    await backend.close()


async def test_a_repair_of_a_redis_that_was_set_back_applies_nothing_twice(served: Served) -> None:
    """An old backup: what later revisions have applied is pending again, and a new event waits beside it."""
    await served.learn(ALICE, "a")
    later = [await served.learn(ALICE, event) for event in "bcd"]
    await served.forget(ALICE)
    await served.backend.append(ALICE, *"xbcdy")
    assert await repair(served.backend.users, served.revisions) == 1
    state = await served.backend.users.get(ALICE)
    pending = await served.backend.pending(await served.backend.own(ALICE), ALICE)
    assert [event.event_id for event in pending] == ["x", "y"]
    assert (state.pending, state.current) == (2, later[-1])


async def test_a_deleted_user_is_not_repaired(served: Served) -> None:
    chain = [await served.learn(ALICE, event) for event in "ab"]
    await served.backend.users.delete(ALICE)
    assert await repair(served.backend.users, served.revisions) == 0
    assert not await served.backend.users.restore(ALICE.digest, chain, ())


async def test_a_single_revision_is_lost_with_an_emptied_redis(served: Served) -> None:
    made = await served.learn(ALICE, "a")
    settings = served.backend.settings
    with in_environment(settings_environment(settings)):
        assert await asyncio.to_thread(run, ["store", "check"]) == 0
        await served.forget(ALICE)
        assert await asyncio.to_thread(run, ["store", "check"]) == 1
        assert await asyncio.to_thread(run, ["store", "sweep", "--older-than", "0"]) == 0
        assert await served.held(ALICE) == {made.name}
        assert await asyncio.to_thread(run, ["store", "repair", "--yes"]) == 0
        assert await asyncio.to_thread(run, ["store", "check"]) == 0
    assert await served.backend.users.current(ALICE) == made


async def test_an_emptied_redis_is_not_started_over(served: Served) -> None:
    await refuse_emptied(served.backend.items, served.backend.users, served.revisions)
    await served.backend.items.publish_backbone(BACKBONE)
    await served.learn(ALICE, "a")
    await refuse_emptied(served.backend.items, served.backend.users, served.revisions)
    await served.raw.delete(f"{served.backend.settings.redis.prefix}:backbone")
    await served.forget(ALICE)
    with pytest.raises(ValueError, match="Redis is empty, but the revision store is not"):
        await refuse_emptied(served.backend.items, served.backend.users, served.revisions)


async def test_an_emptied_redis_that_was_repaired_is_started(served: Served) -> None:
    await served.learn(ALICE, "a")
    await served.learn(ALICE, "b")
    await served.forget(ALICE)
    with pytest.raises(ValueError, match="papa store repair"):
        await refuse_emptied(served.backend.items, served.backend.users, served.revisions)
    await repair(served.backend.users, served.revisions)
    await refuse_emptied(served.backend.items, served.backend.users, served.revisions)


async def test_a_trainer_leaves_the_lost_user_alone_and_trains_the_others(served: Served) -> None:
    backend = served.backend
    for event in "abc":
        await served.learn(ALICE, event)
    await served.forget(ALICE)
    await backend.append(ALICE, "d")
    await backend.append(BOB, "a")
    settings = backend.settings.model_copy(
        update={"trainer": TrainerSettings(min_labels=1, max_wait=0.0, lease=1.0, poll=0.02)}
    )
    for partition in {ALICE.partition(PARTITIONS), BOB.partition(PARTITIONS)}:
        await served.raw.delete(f"{settings.redis.prefix}:{{p{partition:02d}}}:lease")
    world = World(settings, backend.log, backend.users, served.revisions)
    async with world.trainer(TallyUpdater()):
        await until(lambda: world.has_revisions(BOB, 1))
        assert (await backend.users.get(ALICE)).current is None
        assert (await backend.users.get(ALICE)).pending == 1


async def test_trainers_sweep(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("papa_serving.trainer.loop.SWEEP_SECONDS", 0.05)
    await served.learn(ALICE, "a")
    await served.backend.users.delete(ALICE)
    world = World(served.backend.settings, served.backend.log, served.backend.users, served.revisions)
    async with world.trainer(TallyUpdater()):
        await until(lambda: _nothing_of(served, ALICE))


async def test_the_commands(
    served: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in settings_environment(served.backend.settings).items():
        monkeypatch.setenv(name, value)
    await served.backend.items.publish_backbone(BACKBONE)
    for event in "abc":
        await served.learn(ALICE, event)
    orphan = await served.orphan(BOB, "a")

    async def papa(*arguments: str) -> tuple[int, str]:
        code = await asyncio.to_thread(run, arguments)
        return code, capsys.readouterr().out

    assert (await papa("store", "check"))[0] == 0
    await served.forget(ALICE)
    code, out = await papa("store", "check", "--json")
    assert (code, {each["digest"]: each["kind"] for each in json.loads(out)}) == (
        1,
        {ALICE.digest: "lost", BOB.digest: "orphans"},
    )
    assert "repaired 1 users" in (await papa("store", "repair", "--yes"))[1]
    assert json.loads((await papa("store", "sweep", "--older-than", "0", "--json"))[1]) == {"removed": 1}
    assert orphan.name not in await served.held(BOB)
    assert await papa("store", "check", "--json") == (0, "[]\n")


async def _nothing_of(served: Served, user: UserKey) -> bool:
    return not await served.held(user)
