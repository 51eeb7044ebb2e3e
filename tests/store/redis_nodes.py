"""Real redis-servers on loopback that know one another: a Cluster of three; a Sentinel, a primary and its replica."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self

import redis
from papa_serving.local.parent_death import tied_to_parent
from papa_serving.local.redis_process import find_redis_server

from tests.ports import free_port

PASSWORD = "secret"
SERVICE = "likes"
_SLOTS = 16_384


class RedisNode:
    """One process; its data outlive it."""

    def __init__(self, folder: Path, *arguments: str, config: str = "") -> None:
        folder.mkdir(parents=True)
        self.port = free_port()
        self._folder = folder
        self._config = folder / "node.conf"
        self._config.write_text(f"port {self.port}\nbind 127.0.0.1\ndir {folder}\n{config}")
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def client(self) -> redis.Redis:
        password = None if "--sentinel" in self._arguments else PASSWORD
        return redis.Redis(port=self.port, password=password, protocol=2, decode_responses=True)

    def start(self) -> None:
        with (self._folder / "log").open("ab") as log:
            command = tied_to_parent([find_redis_server(), str(self._config), *self._arguments])
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        until(self.answers)

    def answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.ConnectionError:
            return False

    def redirections(self) -> int:
        """How many commands came here whose keys another node has."""
        with self.client() as client:
            return int(client.info("errorstats").get("errorstat_MOVED", {"count": 0})["count"])

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)


def _durable(primary: int = 0) -> str:
    text = f'appendonly yes\nsave ""\nrequirepass {PASSWORD}\nmasterauth {PASSWORD}\nrepl-diskless-sync-delay 0\n'
    return text + (f"replicaof 127.0.0.1 {primary}\n" if primary else "")


class RedisClusterNodes:
    """Three primaries that share the slots."""

    def __init__(self, folder: Path) -> None:
        self.nodes = [self._node(folder / str(number)) for number in range(3)]

    @staticmethod
    def _node(folder: Path) -> RedisNode:
        bus = free_port()
        config = f"cluster-enabled yes\ncluster-port {bus}\ncluster-node-timeout 1000\n"
        return RedisNode(folder, config=config + _durable())

    @property
    def url(self) -> str:
        return f"redis+cluster://:{PASSWORD}@{','.join(node.address for node in self.nodes)}"

    def __enter__(self) -> Self:
        for node in self.nodes:
            node.start()
        step = -(-_SLOTS // len(self.nodes))
        for number, node in enumerate(self.nodes):
            with node.client() as client:
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", number * step, min(_SLOTS, (number + 1) * step) - 1)
                client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        self._meet()
        until(self.sound)
        return self

    def _meet(self) -> None:
        with self.nodes[0].client() as first:
            for node in self.nodes[1:]:
                bus = node.client().config_get("cluster-port")["cluster-port"]
                first.execute_command("CLUSTER", "MEET", "127.0.0.1", node.port, bus)

    def sound(self) -> bool:
        def knows_all(node: RedisNode) -> bool:
            with node.client() as client:
                info = client.execute_command("CLUSTER", "INFO")
                return "cluster_state:ok" in info and f"cluster_known_nodes:{len(self.nodes)}" in info

        return all(map(knows_all, self.nodes))

    def __exit__(self, *raised: object) -> None:
        for node in self.nodes:
            node.kill()


class RedisSentinels:
    """A primary, a replica, and one Sentinel that may decide alone."""

    def __init__(self, folder: Path) -> None:
        self.primary = RedisNode(folder / "primary", config=_durable())
        self.replica = RedisNode(folder / "replica", config=_durable(self.primary.port))
        watch = f"sentinel monitor {SERVICE} 127.0.0.1 {self.primary.port} 1\nsentinel auth-pass {SERVICE} {PASSWORD}\n"
        haste = f"sentinel down-after-milliseconds {SERVICE} 300\nsentinel failover-timeout {SERVICE} 2000\n"
        self.sentinel = RedisNode(folder / "sentinel", "--sentinel", config=watch + haste)

    @property
    def url(self) -> str:
        # The first one is not there: any of the others will do.
        return f"redis+sentinel://:{PASSWORD}@127.0.0.1:1,{self.sentinel.address}/{SERVICE}"

    def __enter__(self) -> Self:
        for node in (self.primary, self.replica, self.sentinel):
            node.start()
        with self.sentinel.client() as sentinel, suppress(redis.ResponseError):
            # Milliseconds. By default a Sentinel takes half a minute to demote the old primary after a failover, and
            # before Redis 7 that cannot be changed.
            sentinel.execute_command("SENTINEL", "DEBUG", "INFO-PERIOD", 200, "PUBLISH-PERIOD", 200)
        until(self.in_step)
        return self

    def in_step(self) -> bool:
        with self.sentinel.client() as sentinel, self.replica.client() as replica:
            known = sentinel.execute_command("SENTINEL", "REPLICAS", SERVICE)
            return bool(known) and replica.info("replication")["master_link_status"] == "up"

    def role_of(self, node: RedisNode) -> str:
        with node.client() as client:
            return str(client.info("replication")["role"])

    def __exit__(self, *raised: object) -> None:
        for node in (self.sentinel, self.replica, self.primary):
            node.kill()
