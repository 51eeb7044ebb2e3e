"""On a real Ray: an actor that is killed comes back by itself and goes on; the deployment stops what it started."""

import os
import signal
from collections.abc import AsyncIterator, Iterator

import numpy as np
import psutil
import pytest
import ray
from ray import serve

from services.contracts.identity import UserKey
from services.contracts.samples import pack_sample
from services.local.redis_process import RedisProcess
from services.settings import Settings
from services.trainer.actor import NAMESPACE
from services.trainer.deployment import application
from tests.trainer.conftest import close_world, open_world, quick_settings
from tests.trainer.tiny_backbone import SHAPE, write_tiny_backbone
from tests.trainer.world import World, until

APPLICATION = "trainer"


@pytest.fixture(scope="module")
def deployed(redis_server: RedisProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A local Ray with the trainers on it."""
    folder = tmp_path_factory.mktemp("deployed")
    backbone = write_tiny_backbone(folder / "tiny")
    settings = quick_settings(redis_server.url, folder).model_copy(update={"backbone": str(backbone)})
    # Ray's workers are nice by default, which on a busy machine means that they wait for minutes.
    os.environ.setdefault("RAY_worker_niceness", "0")
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=100 * 2**20)
    serve.run(application(settings), name=APPLICATION, route_prefix=None)
    yield settings
    serve.shutdown()
    ray.shutdown()


@pytest.fixture
async def deployed_world(deployed: Settings) -> AsyncIterator[World]:
    world = open_world(deployed)
    yield world
    await close_world(world)


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
    assert not ray.get(actor.health.remote())["serving"], "it says so while it stops"
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


def _picture() -> bytes:
    return pack_sample(np.zeros(SHAPE, np.uint8))
