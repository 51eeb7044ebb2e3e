"""The revision store against Redis: orphans, what deleted users leave, and a Redis that was emptied or set back."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from papa_serving.cli.app import run
from papa_serving.contracts.errors import StoreAhead
from papa_serving.contracts.feedback import UserBatch
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.items import BackboneInfo
from papa_serving.contracts.revisions import Revision, RevisionStore, revision_name
from papa_serving.local.environment import settings_environment
from papa_serving.local.redis_process import RedisProcess
from papa_serving.settings import TrainerSettings
from papa_serving.store import open_revisions
from papa_serving.store.census import Kind, census, refuse_ahead, refuse_emptied, repair, sweep
from redis.asyncio import Redis

from tests.store.support import PARTITIONS, Backend, open_redis, redis_settings
from tests.trainer.support import TallyUpdater, World, until

ALICE, BOB = UserKey("shop", "alice"), UserKey("shop", "bob")
BACKBONE = BackboneInfo("ab" * 32, "name", (1, 8, 8))


class Place:
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
        """What a trainer does before the commit."""
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


@pytest.fixture
async def place(redis_server: RedisProcess, tmp_path: Path, raw: Redis) -> AsyncIterator[Place]:
    backend = open_redis(redis_settings(redis_server.url, tmp_path))
    yield Place(backend, raw)
    await backend.close()


async def test_nothing_is_found_where_all_is_well(place: Place) -> None:
    await place.learn(ALICE, "a")
    await place.learn(ALICE, "b")
    assert await place.found() == {}
    await refuse_ahead(place.backend.users, place.revisions, ALICE.digest)
    assert await sweep(place.backend.users, place.revisions, 0.0) == 0


async def test_an_orphan_is_swept_once_it_is_old_enough(place: Place) -> None:
    kept = await place.learn(ALICE, "a")
    orphan = await place.orphan(ALICE, "b")
    assert await place.found() == {ALICE.digest: (Kind.ORPHANS, {orphan.name})}
    assert await sweep(place.backend.users, place.revisions) == 0
    assert await sweep(place.backend.users, place.revisions, 0.0) == 1
    assert await place.held(ALICE) == {kept.name}


async def test_what_a_deleted_user_left_is_swept_at_once(place: Place) -> None:
    """Both by a gateway killed before it removed the files and by an update in flight that wrote them afterwards."""
    await place.learn(ALICE, "a")
    await place.orphan(ALICE, "b")
    await place.learn(BOB, "a")
    await place.backend.users.delete(ALICE)
    assert (await place.found())[ALICE.digest][0] is Kind.DELETED
    assert await sweep(place.backend.users, place.revisions) == 2
    assert await place.held(ALICE) == set()
    assert len(await place.held(BOB)) == 1
    assert await place.found() == {}


async def test_what_redis_lost_is_never_swept_and_never_started_over(place: Place) -> None:
    for event in "abc":
        await place.learn(ALICE, event)
    await place.forget(ALICE)
    assert (await place.found())[ALICE.digest][0] is Kind.LOST
    assert await sweep(place.backend.users, place.revisions, 0.0) == 0
    with pytest.raises(StoreAhead, match="papa store check"):
        await refuse_ahead(place.backend.users, place.revisions, ALICE.digest)


async def test_what_an_update_left_after_a_deletion_is_no_loss(place: Place) -> None:
    """Once the tombstone has expired: neither is the user brought back, nor a new one of that id refused."""
    for event in "abc":
        await place.learn(ALICE, event)
    orphan = await place.orphan(ALICE, "d")
    await place.forget(ALICE)
    for name in await place.held(ALICE) - {orphan.name}:
        await place.revisions.discard(ALICE.digest, name)
    assert (await place.found())[ALICE.digest][0] is Kind.ORPHANS
    assert await repair(place.backend.users, place.revisions) == 0
    await refuse_ahead(place.backend.users, place.revisions, ALICE.digest)


async def test_a_repair_puts_the_lineage_back(place: Place) -> None:
    lineage = [await place.learn(ALICE, *events) for events in ("ab", "c", "d")]
    before = await place.backend.users.get(ALICE)
    await place.forget(ALICE)
    assert await repair(place.backend.users, place.revisions) == 1
    after = await place.backend.users.get(ALICE)
    assert (after.current, after.revisions) == (before.current, before.revisions)
    assert await place.backend.users.lineage(ALICE, 9) == lineage[::-1]
    assert await place.found() == {}
    assert await repair(place.backend.users, place.revisions) == 0
    again = await place.learn(ALICE, "e")
    assert (again.parent, again.first_sequence) == (lineage[-1].name, 5)


async def test_a_repair_of_a_redis_that_was_set_back_applies_nothing_twice(place: Place) -> None:
    """An old backup: what later revisions have applied is pending again, and a new event waits beside it."""
    await place.learn(ALICE, "a")
    later = [await place.learn(ALICE, event) for event in "bcd"]
    await place.forget(ALICE)
    await place.backend.append(ALICE, *"xbcdy")
    assert await repair(place.backend.users, place.revisions) == 1
    state = await place.backend.users.get(ALICE)
    pending = await place.backend.pending(await place.backend.own(ALICE), ALICE)
    assert [event.event_id for event in pending] == ["x", "y"]
    assert (state.pending, state.current) == (2, later[-1])


async def test_a_deleted_user_is_not_repaired(place: Place) -> None:
    chain = [await place.learn(ALICE, event) for event in "ab"]
    await place.backend.users.delete(ALICE)
    assert await repair(place.backend.users, place.revisions) == 0
    assert not await place.backend.users.restore(ALICE.digest, chain, ())


async def test_an_emptied_redis_is_not_started_over(place: Place) -> None:
    await refuse_emptied(place.backend.items, place.backend.users, place.revisions)
    await place.backend.items.publish_backbone(BACKBONE)
    await place.learn(ALICE, "a")
    await refuse_emptied(place.backend.items, place.backend.users, place.revisions)
    await place.raw.delete(f"{place.backend.settings.redis.prefix}:backbone")
    await place.forget(ALICE)
    with pytest.raises(ValueError, match="Redis is empty, but the revision store is not"):
        await refuse_emptied(place.backend.items, place.backend.users, place.revisions)


async def test_an_emptied_redis_that_was_repaired_is_started(place: Place) -> None:
    await place.learn(ALICE, "a")
    await place.learn(ALICE, "b")
    await place.forget(ALICE)
    with pytest.raises(ValueError, match="papa store repair"):
        await refuse_emptied(place.backend.items, place.backend.users, place.revisions)
    await repair(place.backend.users, place.revisions)
    await refuse_emptied(place.backend.items, place.backend.users, place.revisions)


async def test_a_trainer_leaves_the_lost_user_alone_and_trains_the_others(place: Place) -> None:
    backend = place.backend
    for event in "abc":
        await place.learn(ALICE, event)
    await place.forget(ALICE)
    await backend.append(ALICE, "d")
    await backend.append(BOB, "a")
    settings = backend.settings.model_copy(
        update={"trainer": TrainerSettings(min_labels=1, max_wait=0.0, lease=1.0, poll=0.02)}
    )
    for partition in {ALICE.partition(PARTITIONS), BOB.partition(PARTITIONS)}:
        await place.raw.delete(f"{settings.redis.prefix}:{{p{partition:02d}}}:lease")
    world = World(settings, backend.log, backend.users, place.revisions)
    async with world.trainer(TallyUpdater()):
        await until(lambda: world.has_revisions(BOB, 1))
        assert (await backend.users.get(ALICE)).current is None
        assert (await backend.users.get(ALICE)).pending == 1


async def test_trainers_sweep(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("papa_serving.trainer.loop.SWEEP_SECONDS", 0.05)
    await place.learn(ALICE, "a")
    await place.backend.users.delete(ALICE)
    world = World(place.backend.settings, place.backend.log, place.backend.users, place.revisions)
    async with world.trainer(TallyUpdater()):
        await until(lambda: _nothing_of(place, ALICE))


async def test_the_commands(place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name, value in settings_environment(place.backend.settings).items():
        monkeypatch.setenv(name, value)
    for event in "abc":
        await place.learn(ALICE, event)
    orphan = await place.orphan(BOB, "a")

    async def papa(*arguments: str) -> tuple[int, str]:
        code = await asyncio.to_thread(run, arguments)
        return code, capsys.readouterr().out

    assert (await papa("store", "check"))[0] == 0
    await place.forget(ALICE)
    code, out = await papa("store", "check", "--json")
    assert (code, {each["digest"]: each["kind"] for each in json.loads(out)}) == (
        1,
        {ALICE.digest: "lost", BOB.digest: "orphans"},
    )
    assert "repaired 1 users" in (await papa("store", "repair", "--yes"))[1]
    assert json.loads((await papa("store", "sweep", "--older-than", "0", "--json"))[1]) == {"removed": 1}
    assert orphan.name not in await place.held(BOB)
    assert await papa("store", "check", "--json") == (0, "[]\n")


async def _nothing_of(place: Place, user: UserKey) -> bool:
    return not await place.held(user)
