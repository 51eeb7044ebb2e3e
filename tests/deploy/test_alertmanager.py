"""Compose's Alertmanager: whom an alert reaches, and which alerts silence others of their release."""

from __future__ import annotations

import json
import re
import subprocess
import time
import urllib.request
from collections.abc import Iterator

import pytest
import yaml

from tests.deploy.live_service import wait_until_ready
from tests.deploy.rules import ROOT, alerts, program
from tests.ports import free_port

CONFIG = ROOT / "deploy" / "alertmanager" / "alertmanager.yaml"
PRODUCTION = {"namespace": "production", "release": "papa"}
STAGING = {"namespace": "staging", "release": "papa"}


def test_only_alerts_that_exist_are_named():
    rules = yaml.safe_load(CONFIG.read_text())["inhibit_rules"]
    matchers = [matcher for rule in rules for side in ("source", "target") for matcher in rule[f"{side}_matchers"]]
    named = {name for matcher in matchers for name in re.findall(r"Papa\w+", matcher)}
    assert named and named <= {alert["alert"] for alert in alerts()}
    assert all({"namespace", "release"} <= set(rule["equal"]) for rule in rules)


@pytest.mark.parametrize(
    ("receiver", "labels"),
    [
        ("page", {**PRODUCTION, "severity": "critical"}),
        ("ticket", {**PRODUCTION, "severity": "warning"}),
        ("ticket", {**STAGING, "severity": "critical"}),
        ("ticket", {"namespace": "production", "release": "papa-canary", "severity": "critical"}),
        ("page", {"namespace": "local", "release": "papa", "severity": "critical"}),
    ],
)
def test_severity_namespace_and_release_say_whom_an_alert_reaches(receiver, labels):
    wanted = [f"--verify.receivers={receiver}", *(f"{name}={value}" for name, value in labels.items())]
    command = [program("amtool"), "config", "routes", "test", f"--config.file={CONFIG}", *wanted]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def alertmanager(tmp_path_factory) -> Iterator[str]:
    """Its address; it is gone at the end."""
    folder = tmp_path_factory.mktemp("alertmanager")
    address = f"127.0.0.1:{free_port()}"
    command = [program("prometheus-alertmanager"), f"--config.file={CONFIG}", f"--storage.path={folder}"]
    command += [f"--web.listen-address={address}", "--cluster.listen-address="]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_until_ready(address, folder / "log")
        yield address
    finally:
        process.terminate()
        process.wait(30)


def test_a_gone_head_silences_what_follows_from_it_in_its_release_alone(alertmanager):
    """What users of another release feel, and what has another cause, goes on to be told."""
    critical, warning = {"severity": "critical"}, {"severity": "warning"}
    told = [
        {"alertname": "PapaHeadAbsent", **critical, **PRODUCTION},
        {"alertname": "PapaCertificateExpires", **critical, **PRODUCTION},
        {"alertname": "PapaPodsPending", "component": "gateway", "pod": "a", **warning, **PRODUCTION},
        {"alertname": "PapaGeneratorAbsent", **critical, **STAGING},
    ]
    silenced = [
        {"alertname": "PapaGeneratorAbsent", **critical, **PRODUCTION},
        {"alertname": "PapaNobodyTrains", **critical, **PRODUCTION},
        {"alertname": "PapaPodsPending", "component": "generator", "pod": "b", **warning, **PRODUCTION},
        {"alertname": "PapaCertificateExpires", **warning, **PRODUCTION},
    ]
    body = json.dumps([{"labels": labels} for labels in (*told, *silenced)]).encode()
    url = f"http://{alertmanager}/api/v2/alerts"
    urllib.request.urlopen(urllib.request.Request(url, body, {"Content-Type": "application/json"}), timeout=30).close()
    deadline = time.monotonic() + 60
    while (states := _states(url)) and "unprocessed" in states.values() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert states == {_key(labels): "active" for labels in told} | {_key(labels): "suppressed" for labels in silenced}


def _states(url: str) -> dict[str, str]:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return {_key(alert["labels"]): alert["status"]["state"] for alert in json.load(answer)}


def _key(labels: dict[str, str]) -> str:
    return json.dumps(labels, sort_keys=True)
