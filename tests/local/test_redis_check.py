"""A Redis that would lose likes is refused; real servers."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from papa_serving.cli.configuration import as_json, as_toml
from papa_serving.local import redis_check
from papa_serving.local.failure import Failure
from papa_serving.local.redis_check import COMMANDS, RIGHTS, check_redis
from papa_serving.local.redis_process import RedisProcess, find_redis_server
from papa_serving.settings import RedisSettings, Settings
from papa_serving.settings.secret_urls import shown, without_secret
from pydantic import SecretStr

from tests.ports import free_port

Start = Callable[..., str]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a server with these options, ended with the test; gives its URL."""
    processes: list[subprocess.Popen[bytes]] = []

    def make(**options: str) -> str:
        port = free_port()
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


@pytest.fixture(scope="module")
def admin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[redis.Redis]:
    """A client that may do everything, on a server whose users the tests make."""
    with RedisProcess(tmp_path_factory.mktemp("acl")) as server, redis.Redis.from_url(server.url) as client:
        client.set("url", server.url)
        yield client


def as_user(admin: redis.Redis, *rules: str) -> RedisSettings:
    """The settings of a user with these rights alone."""
    admin.execute_command("ACL", "SETUSER", "papa", "reset", "on", ">secret", *rules)
    url = admin.get("url")
    assert isinstance(url, bytes)
    return RedisSettings(url=url.decode().replace("unix://", "unix://papa:secret@"))


def test_a_user_with_the_documented_rights_is_enough(admin: redis.Redis) -> None:
    rights = RIGHTS.format(prefix="papa")
    assert check_redis(as_user(admin, *rights.split())).append_only
    assert not admin.keys("papa:*")
    assert f"ACL SETUSER papa on >PASSWORD {rights}" in Path("docs/security.md").read_text()


@pytest.mark.parametrize(
    ("rules", "missing"),
    [
        (("~papa:*", "+@all"), "PUBLISH"),
        (("~papa:*", "&papa:*", "+@all", "-publish"), "PUBLISH"),
        (("~papa:*", "&papa:*", "+@all", "-subscribe"), "SUBSCRIBE"),
        (("~papa:*", "&papa:*", "+@all", "-@scripting"), "EVAL"),
        (("~papa:*", "&papa:*", "+@all", "-evalsha"), "EVALSHA"),
        (("~papa:{p*", "&papa:*", "+@all"), "EXISTS"),
        (("~other:*", "&papa:*", "+@all"), "SET"),
        (("~papa:*", "&papa:*", "+@all", "-@stream"), "XGROUP"),
        (("~papa:*", "&papa:*", "+@all", "-xclaim"), "XCLAIM"),
        (("~papa:*", "&papa:*", "+@all", "-info"), "info"),
    ],
)
def test_a_missing_right_is_named_with_the_line_that_grants_it(
    admin: redis.Redis, rules: tuple[str, ...], missing: str
) -> None:
    with pytest.raises(Failure, match=missing) as refused:
        check_redis(as_user(admin, *rules))
    assert f"ACL SETUSER papa {RIGHTS.format(prefix='papa')}" in refused.value.hint
    assert "secret" not in refused.value.message
    assert not admin.keys("papa:*")


def test_every_command_of_the_scripts_is_tried() -> None:
    scripts = Path("services/papa_serving").glob("*/lua/*.lua")
    called = {name for script in scripts for name in re.findall(r"redis\.p?call\('([A-Z]+)'", script.read_text())}
    of_catalogues = {name for name in called if f"+{name.lower()}" in Path("docs/catalogue.md").read_text()}
    assert of_catalogues == {"VADD", "VREM"}
    assert called - of_catalogues <= {command[0] for command in COMMANDS}


@pytest.mark.parametrize(
    "url",
    [
        "redis://:abc@HUNTER2@127.0.0.1:1/0",
        "redis://papa:abc%40HUNTER2@127.0.0.1:1/0",
        "redis://127.0.0.1:1/0?password=HUNTER2",
        "redis://127.0.0.1:1/0?db=1&ssl_password=HUNTER2",
        "redis://:a/HUNTER2@127.0.0.1:1/0",
        "redis://:a?HUNTER2@127.0.0.1:1/0",
        "redis://:a#HUNTER2@127.0.0.1:1/0",
        "redis://user:1#HUNTER2@127.0.0.1:1/0",
        "redis://HUNTER2@127.0.0.1:1/0",
        "redis+cluster://:abc@HUNTER2@127.0.0.1:1,127.0.0.1:2",
        "redis+sentinel://:HUNTER2@127.0.0.1:1/likes",
        "unix://papa:HUNTER2@/nowhere/redis.sock?db=0",
        "http://:HUNTER2@127.0.0.1:1/0",
        ":HUNTER2@127.0.0.1:1",
        "redis://[:HUNTER2@127.0.0.1",
        "redis://:pass:HUNTER2",
        "redis://127.0.0.1:1/0;password=HUNTER2",
        "rediss://:abc@127.0.0.1:1/HUNTER2",
        "redis://127.0.0.1:1?username=papa&password=a%40HUNTER2",
    ],
)
def test_no_error_shows_a_secret_of_the_url(url: str) -> None:
    with pytest.raises(Failure) as refused:
        check_redis(RedisSettings(url=url))
    assert "HUNTER2" not in f"{refused.value.message} {refused.value.hint}"
    assert "HUNTER2" not in shown(url)
    settings = Settings(redis=RedisSettings(url=url))
    assert "HUNTER2" not in as_toml(settings) + as_json(settings)


@pytest.mark.parametrize(
    "url", ["redis://HUNTER2@h", "redis://h?password=a%40HUNTER2", "rediss://:a%40HUNTER2@h", "redis://h/0;HUNTER2"]
)
def test_a_library_that_quotes_the_url_shows_no_secret(url: str) -> None:
    assert "HUNTER2" not in without_secret(f"cannot connect to {url}: refused", url)


def test_nobody_there_is_one_line() -> None:
    port = free_port()
    with pytest.raises(Failure, match="does not answer"):
        check_redis(RedisSettings(url=f"redis://127.0.0.1:{port}"))
    with pytest.raises(Failure, match="does not answer"):
        check_redis(RedisSettings(url="nonsense"))
