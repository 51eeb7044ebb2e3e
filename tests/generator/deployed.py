"""A generator on a real Ray Serve, behind its real gRPC proxy, over a real redis-server and real files."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import ray
from diffusers import DDPMPipeline, DDPMScheduler
from papa_serving.contracts.identity import UserKey
from papa_serving.generator.deployment import SERVICER, application
from papa_serving.local.redis_process import RedisProcess
from papa_serving.settings import FeedbackSettings, GeneratorSettings, RedisSettings, Settings
from papa_serving.settings.variables import in_environment
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from pydantic import SecretStr
from ray import serve

from tests.papa.support import tiny_unet
from tests.ports import free_port

NAME = "generator"
TOKEN = "the-engine-token-of-this-test"


class Deployed:
    """A deployed generator: its address, and the reports of its replica."""

    def __init__(self, settings: Settings, port: int, logs: Path) -> None:
        self.settings = settings
        self.address = f"127.0.0.1:{port}"
        self.logs = logs

    def metric(self, name: str, **labels: str) -> float:
        registry = CollectorRegistry()
        MultiProcessCollector(registry, str(self.settings.data_dir / "metrics"))
        return registry.get_sample_value(name, labels) or 0.0

    def replicas(self) -> list[psutil.Process]:
        """The processes of the generator, which are descendants of this test's Ray."""
        children = psutil.Process().children(recursive=True)
        return [child for child in children if f"ServeReplica:{NAME}:generator" in " ".join(child.cmdline())]

    def forget(self, pid: int) -> None:
        """Removes the gauges of a killed process, as the scrape of the gateway's metrics does."""
        mark_process_dead(pid, str(self.settings.data_dir / "metrics"))

    def log_lines(self) -> str:
        return "".join(path.read_text(errors="replace") for path in self.logs.glob("worker-*.err"))


@contextmanager
def deployed(folder: Path, ray_folder: Path) -> Iterator[Deployed]:
    DDPMPipeline(unet=tiny_unet(), scheduler=DDPMScheduler()).save_pretrained(folder / "tiny")
    with RedisProcess(folder / "redis") as redis:
        settings = Settings(
            data_dir=folder / "data",
            backbone=str(folder / "tiny"),
            redis=RedisSettings(url=redis.url, prefix=f"t{secrets.token_hex(4)}"),
            feedback=FeedbackSettings(partitions=2),
            generator=GeneratorSettings(
                token=SecretStr(TOKEN),
                threads=1,
                sampler="ddim",
                steps=4,
                max_rows=8,
                max_queued_rows=16,
                drain_seconds=120,
            ),
        )
        with in_environment({"PAPA_GENERATOR__TOKEN": TOKEN}):
            ray.init(
                address="local",
                num_cpus=2,
                include_dashboard=False,
                log_to_driver=False,
                object_store_memory=100 * 2**20,
                _temp_dir=str(ray_folder),
            )
        try:
            port = _serve(settings)
            yield Deployed(settings, port, ray_folder / "session_latest" / "logs")
        finally:
            serve.shutdown()
            ray.shutdown()


def _serve(settings: Settings) -> int:
    http, grpc = free_port(), free_port()
    serve.start(
        proxy_location="HeadOnly",
        http_options={"host": "127.0.0.1", "port": http},
        grpc_options={"port": grpc, "grpc_servicer_functions": [SERVICER], "enable_reflection": False},
    )
    serve.run(application(settings), name=NAME, route_prefix=f"/{NAME}")
    return grpc


def key(name: str) -> UserKey:
    return UserKey("tenant", name)


def until(condition: object, seconds: float = 60.0) -> None:
    """Waits until `condition()` holds."""
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
