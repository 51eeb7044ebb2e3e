"""SIGKILL and SIGSTOP of real trainer processes: every event exactly once, lineages stay chains."""

import asyncio
import os
import signal
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest
from papa_serving.contracts.identity import UserKey
from papa_serving.local.redis_process import RedisProcess

from tests.trainer.processes import log_file, trainer_process, was_killed
from tests.trainer.support import (
    PATIENCE,
    Pause,
    TallyUpdater,
    World,
    close_world,
    event_ids,
    open_world,
    quick_settings,
    until,
)


async def _assert_each_event_once(world: World, users: list[UserKey], count: int) -> None:
    for user in users:
        assert list(chain.from_iterable(await world.applied(user))) == event_ids(count)
        newest = (await world.lineage(user))[-1]
        assert (await world.manifest(user, newest.name))["learned"] == event_ids(count)
        assert newest.events_total == newest.last_sequence == count
        await world.assert_chain(user)
        assert await world.dead_letters(user) == []
        assert (await world.users.get(user)).pending == 0


@pytest.mark.parametrize("point", ["after_read", "after_training", "after_blob", "before_commit", "after_commit"])
async def test_a_kill_at_any_point_loses_and_doubles_nothing(
    redis_world: World, users: list[UserKey], tmp_path: Path, point: str
) -> None:
    world, some = redis_world, users[:3]
    for user in some:
        await world.say(user, *event_ids(5))
    with trainer_process(world.settings, TRAINER_FAULT=point, TRAINER_FAULT_MARKER=str(tmp_path / "marker")) as process:
        process.wait(PATIENCE)
        assert was_killed(process)
    for user in some:
        await world.say(user, *event_ids(4, start=6))
    async with world.trainer(TallyUpdater()):
        await until(lambda: world.nothing_pending(*some))
    await _assert_each_event_once(world, some, 9)


def test_a_fault_with_a_marker_happens_once(tmp_path: Path) -> None:
    code = "from papa_serving.trainer.fault import reach; reach('after_read'); reach('after_blob'); print('alive')"
    environment = os.environ | {"TRAINER_FAULT": "after_blob", "TRAINER_FAULT_MARKER": str(tmp_path / "marker")}
    command = [sys.executable, "-c", code]
    first, second = (subprocess.run(command, env=environment, capture_output=True, check=False) for _ in range(2))
    assert (first.returncode, first.stdout) == (-signal.SIGKILL, b"")
    assert (second.returncode, second.stdout) == (0, b"alive\n")


async def test_a_trainer_stopped_past_its_lease_cannot_commit(redis_world: World, user: UserKey) -> None:
    world = redis_world
    await world.say(user, *event_ids(3))
    with trainer_process(world.settings, TEST_SLOW="1.0") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "training\n"
        process.send_signal(signal.SIGSTOP)
        async with world.trainer(TallyUpdater(), "successor"):
            await until(lambda: world.has_revisions(user, 1))
            await world.say(user, *event_ids(3, start=4))
            await until(lambda: world.has_revisions(user, 2))
            process.send_signal(signal.SIGCONT)
            await until(lambda: _logged(world, "lost a partition"))
            await world.say(user, *event_ids(3, start=7))
            await until(lambda: world.nothing_pending(user))
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    await _assert_each_event_once(world, [user], 9)


async def test_an_event_that_kills_the_trainer_is_buried_alone(redis_world: World, users: list[UserKey]) -> None:
    trainer = redis_world.settings.trainer.model_copy(update={"max_attempts": 3, "lease": 0.5})
    settings = redis_world.settings.model_copy(update={"trainer": trainer})
    world, (victim, other) = redis_world, users[:2]
    await world.say(victim, "e1", "poison", "e2", "e3")
    await world.say(other, *event_ids(3))
    deaths = 0
    while not await world.nothing_pending(victim, other):
        with trainer_process(settings, TEST_POISON="poison") as process:
            await until(lambda process=process: _ended_or_done(world, process, victim, other))
            deaths += was_killed(process)
    assert deaths == 3
    (letter,) = await world.dead_letters(victim)
    assert letter.event.event_id == "poison"
    assert letter.event.attempts == 3
    assert "3 attempts" in letter.reason
    assert list(chain.from_iterable(await world.applied(victim))) == ["e1", "e2", "e3"]
    assert list(chain.from_iterable(await world.applied(other))) == ["e1", "e2", "e3"]
    await world.assert_chain(victim)


async def test_redis_killed_during_an_update_only_delays_it(tmp_path: Path, user: UserKey) -> None:
    with RedisProcess(tmp_path / "redis") as server:
        world = open_world(quick_settings(server.url, tmp_path))
        pause = Pause()
        await world.say(user, *event_ids(3))
        async with world.trainer(TallyUpdater(pause)):
            await until(pause.is_reached)
            server.kill()
            pause.go_on.set()
            await asyncio.sleep(0.5)
            server.start()
            await until(lambda: world.has_revisions(user, 1))
            await world.say(user, *event_ids(3, start=4))
            await until(lambda: world.nothing_pending(user))
        await _assert_each_event_once(world, [user], 6)
        await close_world(world)


async def _logged(world: World, words: str) -> bool:
    return words in await asyncio.to_thread(log_file(world.settings).read_text)


async def _ended_or_done(world: World, process: subprocess.Popen[str], *users: UserKey) -> bool:
    return process.poll() is not None or await world.nothing_pending(*users)
