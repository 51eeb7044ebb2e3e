"""`papa up` where it must not start: one clear line, a non-zero exit, and nothing left behind.

What it does where it may start is tested in tests/local (with placeholders) and tests/loop (with everything).
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from papa_serving.local.instance_lock import InstanceLock
from papa_serving.local.redis_process import RedisProcess

from tests.cli.conftest import Ended, Papa

FREE = ("--port", "0", "--metrics-port", "0", "--set", "ray.serve_grpc_port=0", "--no-playground")


@pytest.fixture
def taken_port() -> Iterator[str]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield str(listening.getsockname()[1])


def refused(ended: Ended) -> str:
    """The one line."""
    assert ended.code == 1
    assert ended.err.count("\n") == 1
    assert "gRPC" not in ended.out
    return ended.err


@pytest.mark.parametrize("option", ["--port", "--metrics-port"])
def test_a_port_in_use(papa: Papa, taken_port: str, option: str) -> None:
    ended = papa("up", *FREE, option, taken_port)
    assert f"port {taken_port} of 127.0.0.1 cannot be used: Address already in use" in refused(ended)
    assert not ended.out


def test_a_missing_backbone(papa: Papa) -> None:
    ended = papa("up", *FREE, "--backbone", "nothing")
    assert "no backbone 'nothing'" in refused(ended)
    assert not Path("papa-data").exists()


def test_a_service_that_runs_already(papa: Papa, tmp_path: Path) -> None:
    with InstanceLock(tmp_path / "data"):
        assert "already running" in refused(papa("up", *FREE, "--data-dir", "data"))


def test_a_redis_that_would_lose_likes(papa: Papa, tmp_path: Path) -> None:
    with RedisProcess(tmp_path / "redis", port=0) as redis:
        import redis as client

        with client.Redis.from_url(redis.url) as connection:
            connection.config_set("appendonly", "no")
        ended = papa("up", *FREE, "--redis", redis.url)
    assert "keeps no append-only file" in refused(ended)
    assert "✗ redis" in ended.out


def test_no_redis_at_all(papa: Papa) -> None:
    assert "does not answer" in refused(papa("up", *FREE, "--redis", "redis://127.0.0.1:1"))


@pytest.mark.parametrize(
    ("options", "ways"),
    [
        (("--host", "0.0.0.0"), ("gateway.auth.mode", "--insecure")),
        (("--host", "::"), ("gateway.auth.mode", "--insecure")),
        (("--set", "playground.host=0.0.0.0", "--playground"), ("proxy", "--insecure")),
        (("--ray-address", "127.0.0.1:1", "--redis", "redis://127.0.0.1:1", "--set", "ray.serve_grpc_port=9000"),
         ("generator.token", "generator.insecure")),
    ],
)  # fmt: skip
def test_a_port_that_strangers_could_use_needs_leave(papa: Papa, options: tuple[str, ...], ways: list[str]) -> None:
    said = refused(papa("up", *FREE, *options))
    assert all(way in said for way in ways)
    assert not Path("papa-data").exists()


def test_what_strangers_may_use_goes_past_that_check(papa: Papa, tmp_path: Path) -> None:
    with InstanceLock(tmp_path / "data"):
        ended = papa("up", *FREE, "--host", "0.0.0.0", "--insecure", "--data-dir", "data")
        assert "already running" in refused(ended)


def test_a_ray_cluster_that_is_not_there(papa: Papa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAPA_GENERATOR__TOKEN", "secret")
    with RedisProcess(tmp_path / "redis", port=0) as redis:
        options = ["--redis", redis.url, "--set", "ray.serve_grpc_port=9000", "--ray-address", "127.0.0.1:1"]
        assert "does not answer" in refused(papa("up", *FREE, *options))
    assert "Redis that its nodes reach" in refused(papa("up", *FREE, "--ray-address", "127.0.0.1:1"))
