"""A user whose whole history arrives at once is ready in one update."""

from papa_serving.contracts.identity import UserKey
from papa_serving.settings import TrainerSettings
from papa_serving.trainer import intake

from tests.trainer.support import PARTITIONS, TallyUpdater, World, event_ids, until


async def test_two_hundred_events_are_one_update(world: World, user: UserKey) -> None:
    await world.say(user, *event_ids(200))
    async with world.trainer(TallyUpdater(), max_labels=TrainerSettings().max_labels):
        await until(lambda: world.nothing_pending(user))
    assert await world.applied(user) == [event_ids(200)]


async def test_so_are_they_where_a_read_of_the_log_cuts_them(world: World, user: UserKey) -> None:
    before = next(
        other
        for number in range(10_000)
        if (other := UserKey(user.tenant, f"u{number}")).partition(PARTITIONS) == user.partition(PARTITIONS)
    )
    ids = event_ids(intake.EVENTS_PER_READ - 100)
    for first in range(0, len(ids), 200):
        await world.say(before, *ids[first : first + 200])
    await world.say(user, *event_ids(200))
    async with world.trainer(TallyUpdater(), max_labels=TrainerSettings().max_labels):
        await until(lambda: world.nothing_pending(user, before))
    assert await world.applied(user) == [event_ids(200)]
