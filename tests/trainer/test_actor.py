"""On a real Ray: trainers come and go with the backlog; one that is killed comes back and goes on; the deployment stops
what it started."""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import ray
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.samples import pack_sample
from papa_serving.local.redis_process import RedisProcess
from papa_serving.settings import FeedbackSettings, GateSettings, Settings, TrainerAutoscalingSettings
from papa_serving.trainer.actor import NAMESPACE
from papa_serving.trainer.deployment import application
from ray import serve
from ray.exceptions import RayError

from tests.trainer.support import World, close_world, open_world, quick_settings, until
from tests.trainer.tiny_backbone import SHAPE, write_tiny_backbone

APPLICATION = "trainer"


@pytest.fixture(scope="module")
def deployed(redis_server: RedisProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A local Ray with the trainers on it."""
    folder = tmp_path_factory.mktemp("deployed")
    backbone = write_tiny_backbone(folder / "tiny")
    settings = scaling_settings(redis_server.url, folder, str(backbone))
    # Ray's workers are nice by default, which on a busy machine means that they wait for minutes.
    os.environ.setdefault("RAY_worker_niceness", "0")
    # A thread of torch that waits leaves its core to the others.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=100 * 2**20)
    serve.run(application(settings), name=APPLICATION, route_prefix=None)
    yield settings
    serve.shutdown()
    ray.shutdown()


def scaling_settings(url: str, folder: Path, backbone: str) -> Settings:
    """One trainer, a second where a label waits for long; enough partitions that each of two surely gets some."""
    settings = quick_settings(url, folder)
    scaling = TrainerAutoscalingSettings(max_actors=2, target_age=1.0, upscale_delay=0.5, downscale_delay=3.0)
    quick = {"autoscaling": scaling, "threads": 1, "gate": GateSettings(probe_samples=0)}
    trainer = settings.trainer.model_copy(update=quick)
    changes = {"backbone": backbone, "trainer": trainer, "feedback": FeedbackSettings(partitions=16)}
    return settings.model_copy(update=changes)


@pytest.fixture
async def deployed_world(deployed: Settings) -> AsyncIterator[World]:
    world = open_world(deployed)
    yield world
    await close_world(world)


async def test_a_second_trainer_takes_partitions_of_a_backlog_and_goes_when_idle(deployed_world: World) -> None:
    world, users, first = deployed_world, [UserKey("shop", f"user-{number}") for number in range(8)], _processes()
    said: Counter[UserKey] = Counter()
    while not await _everybody_owns_partitions(2):
        for user in users:
            if await world.nothing_pending(user):
                await world.say(user, *(f"e{said[user] + number}" for number in (1, 2, 3)), sample=_picture())
                said[user] += 3
    assert first < _processes()
    await until(lambda: world.nothing_pending(*said))
    for user, count in said.items():
        await world.assert_chain(user)
        applied = [event for revision in await world.applied(user) for event in revision]
        assert applied == [f"e{number}" for number in range(1, count + 1)]

    await until(lambda: _one_owns_every_partition(world))
    assert _processes() == first


async def _everybody_owns_partitions(trainers: int) -> bool:
    healths = await _healths()
    return len(healths) == trainers and all(health["partitions"] for health in healths)


async def _one_owns_every_partition(world: World) -> bool:
    return [health["partitions"] for health in await _healths()] == [world.log.partitions]


async def _healths() -> list[dict[str, Any]]:
    """Of the trainers that are there and answer."""
    named = [one["name"] for one in ray.util.list_named_actors(all_namespaces=True) if one["namespace"] == NAMESPACE]
    answers = await asyncio.gather(*map(_health, named))
    return [answer for answer in answers if answer is not None]


async def _health(name: str) -> dict[str, Any] | None:
    """None where the actor does not answer, or has gone since it was listed."""
    with suppress(ValueError, TimeoutError, RayError):
        health: dict[str, Any] = await asyncio.wait_for(ray.get_actor(name, namespace=NAMESPACE).health.remote(), 0.2)
        return health
    return None


async def test_a_killed_actor_is_restarted_and_finishes_the_work(deployed_world: World, user: UserKey) -> None:
    world = deployed_world
    await world.say(user, "e1", "e2", "e3", sample=_picture())
    await until(lambda: world.has_revisions(user, 1))
    (process,) = _actors()
    os.kill(process.pid, signal.SIGKILL)
    await world.say(user, "e4", "e5", "e6", sample=_picture())
    await until(lambda: world.has_revisions(user, 2))
    assert await world.applied(user) == [["e1", "e2", "e3"], ["e4", "e5", "e6"]]
    await world.assert_chain(user)
    assert [other.pid for other in _actors()] != [process.pid]


async def test_deleting_the_application_stops_the_actors_and_frees_their_partitions(deployed_world: World) -> None:
    world = deployed_world
    other = UserKey("shop", "another")
    await world.say(other, "e1", "e2", "e3", sample=_picture())
    await until(lambda: world.has_revisions(other, 1))
    (name,) = _trainers()
    actor = ray.get_actor(name, namespace=NAMESPACE)
    assert ray.get(actor.health.remote())["serving"]
    actor.stop.remote()

    async def says_so() -> bool:
        return not (await actor.health.remote())["serving"]

    await until(says_so)
    serve.delete(APPLICATION)
    assert not _trainers()
    for partition in range(world.log.partitions):
        assert await world.log.acquire(partition, "somebody else", 1.0) is not None


def _trainers() -> list[str]:
    """The names of the actors."""
    actors = ray.util.list_named_actors(all_namespaces=True)
    return [one["name"] for one in actors if one["namespace"] == NAMESPACE]


def _actors() -> list[psutil.Process]:
    """The processes of trainer actors on this machine that belong to this test's Ray."""
    children = psutil.Process().children(recursive=True)
    return [child for child in children if "TrainerActor" in " ".join(child.cmdline())]


def _processes() -> set[int]:
    return {process.pid for process in _actors()}


def _picture() -> bytes:
    return pack_sample(np.zeros(SHAPE, np.uint8))
