"""A real gateway and a real redis-server against the echo, in turns, with the processor time of both."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import psutil
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.items import BackboneInfo, StoredItem
from papa_serving.contracts.samples import pack_sample
from papa_serving.local.redis_process import RedisProcess
from papa_serving.settings import FeedbackSettings, GatewaySettings, MetricsSettings, RedisSettings, Settings
from papa_serving.settings.variables import settings_environment
from papa_serving.store import open_items

from benchmarks.engine.paired import Paired, take_turns
from benchmarks.feedback.load import ITEMS, USERS, Sender, events, item_id

SHAPE = (1, 28, 28)
PER_TURN = {"unary": 1_500, "streamed": 6_000, "batched": 20_000}


def measure(turns: int, per_turn: Mapping[str, int] = PER_TURN) -> tuple[dict[str, Paired], float, float]:
    """Turns of each way; batched events per second of processor time of gateway and Redis; the gateway's alone."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        redis = stack.enter_context(RedisProcess(folder / "redis"))
        settings = Settings(
            data_dir=folder,
            redis=RedisSettings(url=redis.url),
            gateway=GatewaySettings(port=0, max_events=1000),
            metrics=MetricsSettings(port=0),
            feedback=FeedbackSettings(backlog_limit=10_000_000),
        )
        runner = stack.enter_context(asyncio.Runner())
        runner.run(store_items(settings))
        process, address = stack.enter_context(gateway_process(settings))
        echo = stack.enter_context(_echo())
        gateway, other = runner.run(_open(address)), runner.run(_open(echo))
        stack.callback(lambda: runner.run(_close(gateway, other)))
        busy = [psutil.Process(process.pid), psutil.Process(redis.pid)]
        spent: list[list[float]] = []

        def send(way: str, sender: Sender) -> Callable[[], object]:
            def run() -> None:
                each = events(per_turn[way])
                before = _seconds(busy)
                runner.run(getattr(sender, way)(each))
                if sender is gateway and way == "batched":
                    spent.append([after - then for after, then in zip(_seconds(busy), before, strict=True)])

            return run

        found = {
            way: take_turns({way: send(way, gateway), "echo": send(way, other)}, turns)
            for way in ("unary", "streamed", "batched")
        }
        sent = per_turn["batched"] * len(spent)
        return found, sent / sum(map(sum, spent)), sent / sum(each[0] for each in spent)


def _seconds(processes: list[psutil.Process]) -> list[float]:
    return [sum(process.cpu_times()[:2]) for process in processes]


async def store_items(settings: Settings) -> None:
    """The items that `events` names."""
    items = open_items(settings)
    sample = pack_sample(np.zeros(SHAPE, np.uint8))
    await items.publish_backbone(BackboneInfo("bench", "bench", SHAPE))
    for user in range(USERS):
        stored = [StoredItem(item_id(user, item), sample, "", "g", 0) for item in range(ITEMS)]
        await items.put(UserKey("default", f"u{user}"), stored)
    await items.close()


async def _open(address: str) -> Sender:
    return Sender(address)


async def _close(*senders: Sender) -> None:
    for sender in senders:
        await sender.close()


@contextmanager
def gateway_process(settings: Settings) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A gateway in a process of its own, and its address."""
    environment = {**os.environ, **settings_environment(settings)}
    command = [sys.executable, "-m", "papa_serving.gateway"]
    with (
        (settings.data_dir / "gateway.log").open("w") as log,
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        assert process.stdout is not None
        try:
            yield process, json.loads(process.stdout.readline())["grpc"]
        finally:
            process.terminate()


@contextmanager
def _echo() -> Iterator[str]:
    command = [sys.executable, "-m", "benchmarks.feedback.echo"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None and process.stdin is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()
