"""The world, in memory and on a real redis-server with real files."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from papa_serving.contracts.identity import UserKey
from papa_serving.feedback.memory import MemoryFeedbackLog
from papa_serving.local.redis_process import RedisProcess
from papa_serving.settings import Settings
from papa_serving.store.memory import MemoryRevisionStore, MemoryState, MemoryUserDirectory

from tests.tracing.collector import collector, recording  # noqa: F401 - fixtures
from tests.trainer.support import World, close_world, open_world, quick_settings


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    with RedisProcess(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def settings(redis_server: RedisProcess, tmp_path: Path) -> Settings:
    return quick_settings(redis_server.url, tmp_path)


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


@pytest.fixture
def user() -> UserKey:
    return UserKey("shop", "élise")


@pytest.fixture
def users() -> list[UserKey]:
    """Many, in all partitions."""
    return [UserKey("shop", f"user-{number}") for number in range(8)]
