"""From feedback to revisions: when, in which order, and with whom."""

import asyncio
from itertools import chain

import pytest
from papa_serving.contracts.identity import UserKey
from papa_serving.trainer import loop
from papa_serving.trainer.loop import TrainerLoop
from prometheus_client import REGISTRY

from tests.trainer.support import MANIFEST, Pause, TallyUpdater, World, event_ids, until


async def test_enough_labels_start_an_update_at_once(world: World, user: UserKey) -> None:
    async with world.trainer(TallyUpdater(), max_wait=3600.0):
        await world.say(user, "e1", "e2", "e3")
        await until(lambda: world.has_revisions(user, 1))
        await world.say(user, "e4", "e5")
        await asyncio.sleep(0.3)
        assert await world.applied(user) == [["e1", "e2", "e3"]]
        await world.say(user, "e6")
        await until(lambda: world.has_revisions(user, 2))
    assert await world.applied(user) == [["e1", "e2", "e3"], ["e4", "e5", "e6"]]
    await world.assert_chain(user)


async def test_fewer_labels_wait_and_then_start_one(world: World, user: UserKey) -> None:
    async with world.trainer(TallyUpdater(), min_labels=1000, max_wait=0.3):
        await world.say(user, "e1", "e2")
        await until(lambda: world.has_revisions(user, 1))
    assert await world.applied(user) == [["e1", "e2"]]


async def test_a_backlog_is_applied_in_order_in_bounded_portions(world: World, user: UserKey) -> None:
    await world.say(user, *event_ids(23))
    async with world.trainer(TallyUpdater(), max_labels=10):
        await until(lambda: world.has_revisions(user, 3))
    assert [len(events) for events in await world.applied(user)] == [10, 10, 3]
    assert list(chain.from_iterable(await world.applied(user))) == event_ids(23)
    newest = (await world.lineage(user))[-1]
    assert (newest.events_applied, newest.events_total, newest.first_sequence, newest.last_sequence) == (3, 23, 21, 23)
    assert newest.name.startswith("000003-")
    assert (await world.manifest(user, newest.name))["learned"] == event_ids(23)


async def test_ready_users_of_several_partitions_share_one_update(world: World, users: list[UserKey]) -> None:
    for user in users:
        await world.say(user, "e1", "e2", "e3")
    updater = TallyUpdater()
    async with world.trainer(updater, max_users=len(users)):
        for user in users:
            await until(lambda user=user: world.has_revisions(user, 1))
    sizes = [len(updates) for updates, _ in updater.updates]
    assert sum(sizes) == len(users) and max(sizes) > 1
    assert len({user.partition(world.log.partitions) for user in users}) > 1


async def test_a_joint_update_is_bounded(world: World, users: list[UserKey]) -> None:
    for user in users:
        await world.say(user, "e1", "e2", "e3")
    updater = TallyUpdater()
    async with world.trainer(updater, max_users=3):
        for user in users:
            await until(lambda user=user: world.has_revisions(user, 1))
    assert max(len(updates) for updates, _ in updater.updates) == 3


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "OBSERVATION_SECONDS", 0.05)


async def test_an_update_is_measured(world: World, user: UserKey, often: None) -> None:
    def measured() -> dict[str, float]:
        names = ["feedback_to_commit_seconds_count", "update_labels_sum", "update_duration_seconds_count"]
        names += ["revision_number_sum", "revision_number_count"]
        values = {name: REGISTRY.get_sample_value(f"papa_{name}") or 0.0 for name in names}
        values["trained"] = REGISTRY.get_sample_value("papa_revisions_total", {"cause": "trained"}) or 0.0
        values["written"] = REGISTRY.get_sample_value("papa_revision_written_bytes_total") or 0.0
        return values | {"committed": REGISTRY.get_sample_value("papa_updates_total", {"outcome": "committed"}) or 0.0}

    before = measured()
    await world.say(user, *event_ids(3))
    async with world.trainer(TallyUpdater()) as trainer:
        await until(lambda: world.has_revisions(user, 1))
        await until(lambda: _owns(trainer, world.log.partitions))
        assert REGISTRY.get_sample_value("papa_partitions_owned") == world.log.partitions
    assert REGISTRY.get_sample_value("papa_partitions_owned") == 0
    (revision,) = await world.lineage(user)
    manifest = await world.revisions.get(user, revision.name, MANIFEST)
    grown = {name: value - before[name] for name, value in measured().items()}
    assert grown.pop("written") >= len(manifest)
    assert grown == {
        "feedback_to_commit_seconds_count": 3,
        "update_labels_sum": 3,
        "update_duration_seconds_count": 1,
        "committed": 1,
        "trained": 1,
        "revision_number_sum": 1,
        "revision_number_count": 1,
    }


async def test_the_backlog_is_known(world: World, user: UserKey, often: None) -> None:
    pause = Pause()
    await world.say(user, *event_ids(5))
    async with world.trainer(TallyUpdater(pause)) as trainer:
        await until(lambda: _waits(trainer, 5))
        assert REGISTRY.get_sample_value("papa_feedback_backlog_events") == 5
        assert trainer.backlog.oldest_age > 0
        pause.go_on.set()
        await until(lambda: _waits(trainer, 0))


async def _owns(trainer: TrainerLoop, partitions: int) -> bool:
    return trainer.backlog.partitions == partitions


async def _waits(trainer: TrainerLoop, events: int) -> bool:
    return trainer.backlog.partitions > 0 and trainer.backlog.events == events
