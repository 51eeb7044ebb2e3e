"""A trainer that is told to stop says at once that it serves no longer, and still ends what it has begun."""

from __future__ import annotations

import asyncio
import threading

from papa_serving.contracts.identity import UserKey
from papa_serving.trainer.process import TrainerThread

from tests.trainer.support import TallyUpdater, World, until


async def test_not_serving_first_then_the_running_update_is_committed(redis_world: World, user: UserKey) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def during(_: object) -> None:
        begun.set()
        assert go_on.wait(60)

    trainer = TrainerThread(redis_world.settings, "trainer", TallyUpdater(during))
    await redis_world.say(user, "e1", "e2", "e3")
    assert await asyncio.to_thread(begun.wait, 60)
    assert trainer.serving
    stopping = asyncio.create_task(asyncio.to_thread(trainer.stop, 30.0))
    await until(lambda: asyncio.sleep(0, not trainer.serving))
    assert not stopping.done()
    assert not await redis_world.lineage(user)
    go_on.set()
    assert await stopping
    assert await redis_world.applied(user) == [["e1", "e2", "e3"]]
    for partition in range(redis_world.log.partitions):
        assert await redis_world.log.acquire(partition, "somebody else", 1.0) is not None
