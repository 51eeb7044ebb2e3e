"""How Redis is reached: URL forms, passwords, and errors that say what to change."""

from __future__ import annotations

from pathlib import Path

import pytest
from papa_serving.contracts.errors import StorageUnavailable
from papa_serving.contracts.items import BackboneInfo
from papa_serving.feedback import open_log
from papa_serving.local.redis_process import RedisProcess
from papa_serving.settings import FeedbackSettings, RedisSettings, Settings
from papa_serving.store import open_items, open_users
from papa_serving.store.redis_client import call, connect
from pydantic import SecretStr

from tests.store.support import redis_settings


@pytest.mark.parametrize(
    "url", ["", "http://localhost", "localhost:6379", "redis+sentinel://a", "redis+cluster://a/1", "redis+x://a"]
)
def test_a_url_of_another_kind_is_refused_at_once(url: str) -> None:
    settings = Settings(redis=RedisSettings(url=url))
    for factory in (open_log, open_users, open_items):
        with pytest.raises(ValueError, match=r"redis\.url"):
            factory(settings)


@pytest.mark.parametrize(
    "url", ["redis://u:p@h:1/2", "rediss://h:1", "unix:///tmp/x.sock", "rediss+sentinel://u:p@a,b:2/main/1"]
)
def test_the_usual_forms_are_taken(url: str) -> None:
    connect(RedisSettings(url=url))


async def test_the_password_of_the_settings_counts(tmp_path: Path) -> None:
    with RedisProcess(tmp_path / "redis", port=0) as server:
        password, _, address = server.url.removeprefix("redis://:").partition("@")
        right = connect(RedisSettings(url=f"redis://:wrong@{address}", password=SecretStr(password)))
        assert await call(right, "PING")
        await right.aclose()
        wrong = connect(RedisSettings(url=f"redis://{address}"))
        with pytest.raises(StorageUnavailable, match=r"(?i)auth"):
            await call(wrong, "PING")
        await wrong.aclose()


async def test_a_store_keeps_its_number_of_partitions(redis_server: RedisProcess, tmp_path: Path) -> None:
    settings = redis_settings(redis_server.url, tmp_path)
    info = BackboneInfo("ab" * 32, "name", (1, 28, 28))
    items = open_items(settings)
    await items.publish_backbone(info)
    await items.close()
    other = open_items(settings.model_copy(update={"feedback": FeedbackSettings(partitions=5)}))
    with pytest.raises(ValueError, match="4 partitions for ever"):
        await other.publish_backbone(info)
    await other.close()
