"""`papa up` and a Redis that dies: started again on the same data, but not for ever."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import NoReturn

import pytest
import redis
from papa_serving.local import service
from papa_serving.local.failure import Failure
from papa_serving.local.redis_process import RedisProcess
from papa_serving.local.service import RunningService


def kill(server: RedisProcess) -> None:
    pid = server.pid
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def running(server: RedisProcess, folder: Path) -> RunningService:
    return RunningService("", "", "", folder, folder, server, exposed=())


def test_a_redis_that_keeps_dying_is_given_up_and_loses_nothing_before(tmp_path: Path) -> None:
    with RedisProcess(tmp_path / "redis") as server:
        with redis.Redis.from_url(server.url) as client:
            client.set("like", "acknowledged")
        found: list[object] = []

        def dies_again(said: str) -> None:
            assert "was started again on the same data" in said
            with redis.Redis.from_url(server.url) as client:
                found.append(client.get("like"))
            kill(server)

        kill(server)
        with pytest.raises(Failure, match="has died 6 times within 300 seconds"):
            running(server, tmp_path).wait(dies_again)
        assert found == [b"acknowledged"] * 5


class Enough(Exception):
    """The test has seen what it wanted."""


class SlowClock:
    """A minute passes at each look."""

    def __init__(self) -> None:
        self._now = 0.0

    def monotonic(self) -> float:
        return self._now

    def sleep(self, _: float) -> None:
        self._now += 61.0


def test_deaths_that_lie_far_apart_are_not_added_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "time", SlowClock())
    with RedisProcess(tmp_path / "redis") as server:
        times = 0

        def dies_again(_: str) -> None:
            nonlocal times
            times += 1
            if times == 8:
                raise Enough
            kill(server)

        kill(server)
        with pytest.raises(Enough):
            running(server, tmp_path).wait(dies_again)


def test_a_redis_that_does_not_start_again_is_told_at_once(tmp_path: Path) -> None:
    with RedisProcess(tmp_path / "redis") as server:
        with redis.Redis.from_url(server.url) as client:
            client.set("like", "acknowledged")
        kill(server)
        for file in (tmp_path / "redis" / "appendonlydir").iterdir():
            file.write_bytes(b"neither one nor the other")

        def revived(said: str) -> NoReturn:
            pytest.fail(said)

        with pytest.raises(Failure, match=r"has died \(exit code -9\) and does not start") as refused:
            running(server, tmp_path).wait(revived)
        assert "redis.log" in refused.value.hint
