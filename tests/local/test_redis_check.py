"""A Redis that would lose likes is refused; real servers."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from papa_serving.local import redis_check
from papa_serving.local.failure import Failure
from papa_serving.local.ports import claim_port
from papa_serving.local.redis_binary import find_redis_server
from papa_serving.local.redis_check import check_redis, without_password
from papa_serving.settings import RedisSettings
from pydantic import SecretStr

Start = Callable[..., str]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a server with these options, ended with the test; gives its URL."""
    processes: list[subprocess.Popen[bytes]] = []

    def make(**options: str) -> str:
        port = claim_port("127.0.0.1", 0, "redis")
        command = [
            find_redis_server(),
            "--port",
            str(port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--dir",
            str(tmp_path),
        ]
        command += [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", value)]
        processes.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
        url = f"redis://127.0.0.1:{port}"
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                with redis.Redis.from_url(url) as client:
                    client.ping()
            except redis.AuthenticationError:
                break
            except redis.ConnectionError:
                time.sleep(0.02)
            else:
                break
        return url

    yield make
    for process in processes:
        process.kill()
        process.wait()


def test_a_durable_server_is_accepted(start: Start) -> None:
    facts = check_redis(RedisSettings(url=start(appendonly="yes")))
    assert facts.append_only
    assert not facts.may_evict
    assert int(facts.version.split(".")[0]) >= 6


def test_a_server_without_append_only_file_is_refused_unless_allowed(start: Start) -> None:
    url = start(appendonly="no")
    with pytest.raises(Failure, match="no append-only file") as refused:
        check_redis(RedisSettings(url=url))
    assert "appendonly yes" in refused.value.hint
    assert not check_redis(RedisSettings(url=url, require_persistence=False)).append_only


def test_a_server_that_may_evict_is_refused(start: Start) -> None:
    url = start(appendonly="yes", maxmemory="50mb", maxmemory_policy="allkeys-lru")
    with pytest.raises(Failure, match="may evict likes"):
        check_redis(RedisSettings(url=url))


def test_an_old_server_is_refused(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    url = start(appendonly="yes")
    monkeypatch.setattr(redis_check, "OLDEST", (99, 0))
    with pytest.raises(Failure, match="is version"):
        check_redis(RedisSettings(url=url))


def test_a_password_is_used_and_never_shown(start: Start) -> None:
    url = start(appendonly="yes", requirepass="hidden")
    assert check_redis(RedisSettings(url=url, password=SecretStr("hidden"))).append_only
    with pytest.raises(Failure) as refused:
        check_redis(RedisSettings(url=url.replace("//", "//:wrong-secret@")))
    assert "wrong-secret" not in refused.value.message
    assert without_password("rediss://user:p%40ss@host:1/2") == "rediss://host:1/2"


def test_nobody_there_is_one_line() -> None:
    port = claim_port("127.0.0.1", 0, "redis")
    with pytest.raises(Failure, match="does not answer"):
        check_redis(RedisSettings(url=f"redis://127.0.0.1:{port}"))
    with pytest.raises(Failure, match="does not answer"):
        check_redis(RedisSettings(url="nonsense"))
