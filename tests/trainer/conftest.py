"""The world, in memory and on a real redis-server with real files."""

import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from papa_serving.contracts.identity import UserKey
from papa_serving.feedback import open_log
from papa_serving.feedback.memory import MemoryFeedbackLog
from papa_serving.local.redis_process import RedisProcess
from papa_serving.settings import FeedbackSettings, RedisSettings, Settings, TrainerSettings
from papa_serving.store import open_revisions, open_users
from papa_serving.store.memory import MemoryRevisionStore, MemoryState, MemoryUserDirectory

from tests.tracing.conftest import collector, recording  # noqa: F401 - fixtures
from tests.trainer.world import PARTITIONS, World


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    with RedisProcess(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def settings(redis_server: RedisProcess, tmp_path: Path) -> Settings:
    return quick_settings(redis_server.url, tmp_path)


def quick_settings(url: str, data_dir: Path) -> Settings:
    """An empty Redis of its own (by prefix), updates after three labels or 0.2 s, leases of a second."""
    return Settings(
        data_dir=data_dir,
        redis=RedisSettings(url=url, prefix=f"t{secrets.token_hex(6)}"),
        feedback=FeedbackSettings(partitions=PARTITIONS),
        trainer=TrainerSettings(min_labels=3, max_wait=0.2, lease=1.0, poll=0.02),
    )


@pytest.fixture(params=["memory", "redis"])
async def world(request: pytest.FixtureRequest, settings: Settings) -> AsyncIterator[World]:
    """Over both kinds of state."""
    if request.param == "memory":
        state = MemoryState(settings)
        yield World(settings, MemoryFeedbackLog(state), MemoryUserDirectory(state), MemoryRevisionStore())
        return
    world = open_world(settings)
    yield world
    await close_world(world)


@pytest.fixture
async def redis_world(settings: Settings) -> AsyncIterator[World]:
    """Over Redis and files only."""
    world = open_world(settings)
    yield world
    await close_world(world)


def open_world(settings: Settings) -> World:
    return World(settings, open_log(settings), open_users(settings), open_revisions(settings))


async def close_world(world: World) -> None:
    await world.log.close()
    await world.users.close()


@pytest.fixture
def user() -> UserKey:
    return UserKey("shop", "élise")


@pytest.fixture
def users() -> list[UserKey]:
    """Many, in all partitions."""
    return [UserKey("shop", f"user-{number}") for number in range(8)]
