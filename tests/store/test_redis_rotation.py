"""A password of Redis that lies in a file: a replaced one is taken up by new connections, without a restart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from papa_serving.contracts.errors import StorageUnavailable
from papa_serving.contracts.identity import UserKey
from papa_serving.local.redis_check import check_redis
from papa_serving.local.redis_process import RedisProcess
from papa_serving.settings import RedisSettings, Settings
from papa_serving.store import open_users
from papa_serving.store.redis_address import FileCredentials, address_of

ALICE = UserKey("shop", "alice")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    with RedisProcess(tmp_path_factory.mktemp("redis"), port=0) as server:
        yield server


@pytest.fixture
def admin(server: RedisProcess) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(server.url) as client:
        yield client


async def test_a_new_password_is_taken_up_while_the_service_runs(
    server: RedisProcess, admin: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("papa_serving.watched_file.EVERY", 0.0)
    admin.execute_command("ACL", "SETUSER", "papa", "on", ">first", "~*", "&*", "+@all")
    password = tmp_path / "password"
    password.write_text("first\n")
    host = server.url.rpartition("@")[2]
    settings = RedisSettings(url=f"redis://papa@{host}", password_file=password)
    users = open_users(Settings(redis=settings))
    try:
        assert (await users.get(ALICE)).likes == 0
        admin.execute_command("ACL", "SETUSER", "papa", ">second", "<first")
        admin.execute_command("CLIENT", "KILL", "USER", "papa")
        with pytest.raises(StorageUnavailable):
            await users.get(ALICE)
        password.write_text("second\n")
        assert (await users.get(ALICE)).likes == 0
        assert admin.execute_command("ACL", "GETUSER", "papa")
        assert check_redis(settings).append_only
    finally:
        await users.close()


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("redis://papa:old@host:1/0", "papa"),
        ("rediss://host:1/0?username=papa&ssl_check_hostname=false", "papa"),
        ("unix://papa:old@/run/redis.sock?db=1", "papa"),
        ("redis://:old@host:1/0", ""),
        ("redis+cluster://papa:old@h1:1,h2:2", "papa"),
        ("redis+sentinel://papa@h1:1,h2:2/primary/1", "papa"),
    ],
)
def test_the_file_is_read_at_each_login_and_overrides_the_url(
    url: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("papa_serving.watched_file.EVERY", 0.0)
    password = tmp_path / "password"
    password.write_text("first")
    address = address_of(RedisSettings(url=url, password_file=password))
    assert not {"username", "password"} & address.options.keys()
    assert "old" not in address.url
    assert "username" not in address.url
    credentials = address.options["credential_provider"]
    assert isinstance(credentials, FileCredentials)
    assert credentials.get_credentials() == ((name, "first") if name else ("first",))
    password.write_text("second, and longer")
    assert credentials.get_credentials()[-1] == "second, and longer"
    password.unlink()
    assert credentials.get_credentials()[-1] == "second, and longer", "until a new one is there"


def test_a_given_password_is_not_looked_for_in_a_file(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("of the file")
    settings = RedisSettings.model_validate({"url": "redis://h", "password": "given", "password_file": password})
    assert address_of(settings).options == {"password": "given"}
