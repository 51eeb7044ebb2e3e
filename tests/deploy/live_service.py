"""The real service under load, scraped by a real Prometheus."""

from __future__ import annotations

import http.client
import itertools
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import yaml
from papa_serving.client import Client, FeedbackEvent
from papa_serving.contracts.errors import PapaError

from tests.deploy.rules import PLAIN, ROOT, program
from tests.helm.rendering import example, merged, only, render
from tests.ports import free_port

USERS = ("ada", "bob", "eve")
PAUSE = 0.3
"""Seconds that a shopper rests between two grids, which leaves some of two cores to everything else."""
COMPOSE = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yaml").read_text())
LABELS: dict[str, str] = COMPOSE["scrape_configs"][0]["static_configs"][0]["labels"]
"""Namespace and release of the service on one machine, as compose's Prometheus names them."""


@dataclass(frozen=True)
class Live:
    """Addresses, host:port each."""

    gateway: str
    metrics: str
    ray: str
    prometheus: str


@contextmanager
def live_service(folder: Path, backbone: str, **settings: str) -> Iterator[Live]:
    """`papa up` and Prometheus, both gone at the end; without Prometheus' program the test is skipped."""
    prometheus = program("prometheus")
    with (
        _papa(folder / "data", backbone, settings) as (gateway, metrics, ray),
        _prometheus(prometheus, folder, metrics, ray) as address,
    ):
        yield Live(gateway, metrics, ray, address)


@contextmanager
def _papa(folder: Path, backbone: str, settings: dict[str, str]) -> Iterator[tuple[str, str, str]]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PAPA_", "PROM", "RAY_"))}
    chosen = {"gateway.port": "0", "metrics.port": "0", "ray.serve_grpc_port": "0", **settings}
    chosen.setdefault("playground.enabled", "false")
    command = [sys.executable, "-m", "papa_serving.cli.main", "up", "--data-dir", str(folder), "--backbone", backbone]
    command += [part for name, value in chosen.items() for part in ("--set", f"{name}={value}")]
    environment = {**inherited, "PYTHONPATH": str(ROOT), "RAY_enable_metrics_collection": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield *_addresses(process), _ray_exporter(process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(90)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)  # the second one ends everything at once
        process.communicate()


def _addresses(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Of gateway and metrics, from the lines that say so."""
    assert process.stdout is not None
    found: dict[str, str] = {}
    said = []
    for line in process.stdout:
        said.append(line)
        if match := re.match(r"(gRPC|metrics)\s+(?:http://)?([\d.]+:\d+)", line):
            found[match[1]] = match[2]
        if len(found) == 2:
            threading.Thread(target=process.stdout.read, daemon=True).start()
            return found["gRPC"], found["metrics"]
    raise AssertionError(f"papa up has ended: {''.join(said)}")


def _ray_exporter(papa: int) -> str:
    """Where the agent of papa's Ray serves the metrics of its node: on one of the ports that it listens on."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        processes = psutil.Process(papa).children(recursive=True)
        for agent in [each for each in processes if "DashboardAgent" in " ".join(each.cmdline())]:
            for connection in agent.net_connections("tcp"):
                address = f"127.0.0.1:{connection.laddr.port}"
                if connection.status == psutil.CONN_LISTEN and _serves_metrics(address):
                    return address
        time.sleep(0.5)
    raise AssertionError(f"Ray serves no metrics; it runs {[each.cmdline()[:2] for each in processes]}")


def _serves_metrics(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as answer:
            return b"ray_" in answer.read()
    except (OSError, http.client.HTTPException):
        return False


def ray_relabelings() -> list[dict[str, object]]:
    """Of the rendered chart, as Prometheus' own configuration writes them, which the operator makes of a PodMonitor."""
    values = merged(example("dev"), {"metrics": {"monitors": {"enabled": True}}})
    endpoints = only(render(values), "PodMonitor")["spec"]["podMetricsEndpoints"]
    (rules,) = [each["metricRelabelings"] for each in endpoints if "metricRelabelings" in each]
    return [{re.sub("(?=[A-Z])", "_", name).lower(): value for name, value in rule.items()} for rule in rules]


@contextmanager
def _prometheus(binary: str, folder: Path, target: str, ray: str) -> Iterator[str]:
    """Scrapes and evaluates every second, so that seconds of load are enough for every window."""
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(path) for path in PLAIN],
        "scrape_configs": [
            {"job_name": "papa", "static_configs": [{"targets": [target], "labels": LABELS}]},
            {
                "job_name": "ray",
                "static_configs": [{"targets": [ray], "labels": LABELS}],
                "metric_relabel_configs": ray_relabelings(),
            },
        ],
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{free_port()}"
    command = [binary, f"--config.file={folder}/prometheus.yaml", f"--storage.tsdb.path={folder}/series"]
    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen([*command, f"--web.listen-address={address}"], stdout=log, stderr=log)
    try:
        wait_until_ready(address, folder / "prometheus.log")
        yield address
    finally:
        process.terminate()
        process.wait(30)


def wait_until_ready(address: str, log: Path) -> None:
    """Waits for a program of Prometheus' family; fails with what it has logged."""
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(f"http://{address}/-/ready", timeout=5):
                return
        except OSError:
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)


@contextmanager
def shoppers(address: str) -> Iterator[None]:
    """Within the block users look at items, like one half, dislike the other, and come back for what was learnt."""
    closed = threading.Event()
    with futures.ThreadPoolExecutor() as pool:
        shopping = [pool.submit(_shop, address, user, closed) for user in USERS]
        try:
            yield
        finally:
            closed.set()
        for each in shopping:
            each.result()


def _shop(address: str, user: str, closed: threading.Event, count: int = 4) -> None:
    with Client(address) as client:
        revision = ""
        while not closed.is_set():
            items = client.generate(user, count).items
            grades = itertools.cycle((1.0, -1.0))
            events = [
                FeedbackEvent(user, grade, item_id=item.item_id) for item, grade in zip(items, grades, strict=False)
            ]
            client.submit_feedback(events)
            try:
                revision = client.wait_for_revision(user, after=revision, timeout=60.0).name
            except PapaError:
                continue  # the gate may refuse what so few labels teach a random backbone
            closed.wait(PAUSE)
