"""`papa metrics` as a worker pod's container runs it: other processes write, it serves, the dead no longer count."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.request

from tests.deploy.rules import ROOT

WORKER = """
import os, sys
from papa_serving import metrics
metrics.GENERATED_ITEMS.labels("adapter").inc(3)
metrics.ENGINE_QUEUED_ROWS.set(5)
print("written", flush=True)
sys.stdin.read()
"""


def start(command: list[str], folder: str, **environment: str) -> subprocess.Popen[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PAPA_", "PROM"))}
    variables = {
        "PYTHONPATH": str(ROOT), "PAPA_DATA_DIR": folder, "PAPA_METRICS__PORT": "0", **environment,
    }  # fmt: skip
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env={**inherited, **variables}, stdin=pipe, stdout=pipe, text=True)


def scraped(address: str) -> dict[str, float]:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        lines = [line for line in answer.read().decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def test_the_exporter_sums_the_processes_of_its_pod(tmp_path):
    folder = str(tmp_path)
    exporter = start([sys.executable, "-m", "papa_serving.cli.main", "metrics"], folder)
    workers = [
        start([sys.executable, "-c", WORKER], folder, PROMETHEUS_MULTIPROC_DIR=f"{folder}/metrics") for _ in range(2)
    ]
    try:
        (address,) = re.findall(r"http://(\S+)/metrics", exporter.stdout.readline())
        assert [worker.stdout.readline() for worker in workers] == ["written\n"] * 2
        both = scraped(address)
        assert both['papa_generated_items_total{served_by="adapter"}'] == 6
        assert both["papa_engine_queued_rows"] == 10
        workers[0].kill()
        workers[0].wait()
        one = scraped(address)
        assert one['papa_generated_items_total{served_by="adapter"}'] == 6, "what was counted stays counted"
        assert one["papa_engine_queued_rows"] == 5, "what a dead process was doing is not being done"
        exporter.send_signal(signal.SIGTERM)
        assert exporter.wait(20) == 0
    finally:
        for process in (exporter, *workers):
            process.kill()
            process.communicate()
