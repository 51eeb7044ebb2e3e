"""What others do to a user while the user's update is under way, or has happened to the files before it."""

import json

import pytest
from papa_serving.contracts.errors import UserDeleted
from papa_serving.contracts.identity import UserKey

from tests.trainer.support import MANIFEST, Pause, TallyUpdater, World, event_ids, until


async def test_a_user_deleted_during_training_does_not_come_back(world: World, users: list[UserKey]) -> None:
    pause = Pause()
    gone, stays = users[:2]
    await world.say(gone, *event_ids(3))
    await world.say(stays, *event_ids(3))
    updater = TallyUpdater(pause)
    async with world.trainer(updater):
        await until(pause.is_reached)
        await world.users.delete(gone)
        await world.revisions.delete_user(gone)
        pause.go_on.set()
        await until(lambda: world.has_revisions(stays, 1))
        await until(lambda: _no_files(world, gone))
    with pytest.raises(UserDeleted):
        await world.users.get(gone)
    assert await world.users.lineage(gone, 10) == []
    assert await world.dead_letters(gone) == []
    assert await world.applied(stays) == [event_ids(3)]


async def test_a_rollback_during_training_makes_the_update_start_from_there(world: World, user: UserKey) -> None:
    async with world.trainer(TallyUpdater()):
        for number in (1, 2):
            await world.say(user, *event_ids(3, start=3 * number - 2))
            await until(lambda number=number: world.has_revisions(user, number))
    first, second = await world.lineage(user)
    pause = Pause()
    async with world.trainer(TallyUpdater(pause), "another"):
        await world.say(user, *event_ids(3, start=7))
        await until(pause.is_reached)
        await world.users.rollback(user, first.name)
        pause.go_on.set()
        await until(lambda: world.has_revisions(user, 3))
    third = (await world.lineage(user))[-1]
    assert third.parent == first.name
    assert third.name.startswith("000003-")
    assert third.events_total == 6
    assert await world.applied(user) == [event_ids(3), event_ids(3, start=4), event_ids(3, start=7)]
    learned = (await world.manifest(user, third.name))["learned"]
    assert learned == ["e1", "e2", "e3", "e7", "e8", "e9"]
    current = await world.users.current(user)
    assert current == third and second.name != third.name


async def test_a_reset_during_training_makes_the_update_start_afresh(world: World, user: UserKey) -> None:
    async with world.trainer(TallyUpdater()):
        await world.say(user, *event_ids(3))
        await until(lambda: world.has_revisions(user, 1))
    pause = Pause()
    async with world.trainer(TallyUpdater(pause), "another"):
        await world.say(user, *event_ids(3, start=4))
        await until(pause.is_reached)
        await world.users.reset(user)
        pause.go_on.set()
        await until(lambda: world.has_revisions(user, 2))
    newest = (await world.lineage(user))[-1]
    assert (newest.parent, newest.events_total) == ("", 3)
    assert (await world.manifest(user, newest.name))["learned"] == event_ids(3, start=4)


@pytest.mark.parametrize("damage", ["flipped", "gone"])
async def test_a_damaged_parent_gives_way_to_its_newest_good_ancestor(
    redis_world: World, user: UserKey, damage: str
) -> None:
    world = redis_world
    async with world.trainer(TallyUpdater()):
        for number in (1, 2, 3):
            await world.say(user, *event_ids(3, start=3 * number - 2))
            await until(lambda number=number: world.has_revisions(user, number))
        for revision in (await world.lineage(user))[1:]:
            _damage(world, user, revision.name, damage)
        await world.say(user, *event_ids(3, start=10))
        await until(lambda: world.has_revisions(user, 4))
    lineage = await world.lineage(user)
    assert [one.parent for one in lineage] == ["", *(one.name for one in lineage[:-1])]
    newest = await world.manifest(user, lineage[-1].name)
    assert newest["learned"] == [*event_ids(3), *event_ids(3, start=10)]


async def test_with_no_good_ancestor_learning_starts_afresh(redis_world: World, user: UserKey) -> None:
    world = redis_world
    async with world.trainer(TallyUpdater()):
        await world.say(user, *event_ids(3))
        await until(lambda: world.has_revisions(user, 1))
        _damage(world, user, (await world.lineage(user))[0].name, "flipped")
        await world.say(user, *event_ids(3, start=4))
        await until(lambda: world.has_revisions(user, 2))
    first, second = await world.lineage(user)
    assert second.parent == first.name
    assert (await world.manifest(user, second.name))["learned"] == event_ids(3, start=4)


def _damage(world: World, user: UserKey, revision: str, how: str) -> None:
    (file,) = (world.settings.data_dir / "revisions").rglob(f"{user.digest}/{revision}/{MANIFEST}")
    if how == "gone":
        file.unlink()
    else:
        content = json.loads(file.read_bytes())
        file.write_bytes(json.dumps(content | {"learned": ["forged"]}).encode())


async def _no_files(world: World, user: UserKey) -> bool:
    return await world.revisions.delete_user(user) == 0
