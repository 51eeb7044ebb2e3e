"""Every panel and every rule, asked of a real Prometheus that scrapes the real service under load."""

from __future__ import annotations

import importlib
import math
import sys
import time
import urllib.request

import pytest
from papa_serving.cli.app import run

from tests.deploy.live_service import LABELS, Live, live_service, shoppers
from tests.deploy.rules import PLAIN, ROOT, asked_for, rules
from tests.trainer.tiny_backbone import write_tiny_backbone

sys.path.insert(0, str(ROOT / "deploy" / "grafana"))
asking = importlib.import_module("asking")
pictures = importlib.import_module("pictures")
BOARDS = importlib.import_module("generate").BOARDS

VARIABLES = {"__rate_interval": "20s", **LABELS}
QUIET = (
    "PapaTargetDown", "PapaGatewayAbsent", "PapaGeneratorAbsent", "PapaGenerateErrorBudget", "PapaFeedbackRefused",
    "PapaNobodyTrains", "PapaDeadLetters", "PapaUpdatesFailing", "PapaAdapterRefused", "PapaGeneratorStalled",
)  # fmt: skip
"""Alerts that say something about right and wrong, not about the speed of the machine that runs this test."""
PER_ID = {"WorkerId", "SessionName", "JobId", "actor_id", "handle", "pid", "otel_scope_name"}
"""Labels of Ray's page whose values are of one process, one call or one start."""
EMPTY_WHILE_WELL = ("papa:rpc_errors:", "papa:updates_refused:", "papa:generate_errors:")


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    folder = tmp_path_factory.mktemp("live")
    settings = {
        "trainer.min_labels": "2", "trainer.max_wait": "0.2", "trainer.gate.probe_samples": "0",
        "feedback.partitions": "4", "generator.steps": "4", "generator.threads": "1",
        "generator.replicas": "2", "generator.max_replicas": "2",
    }  # fmt: skip
    backbone = str(write_tiny_backbone(folder / "backbone"))
    with live_service(folder, backbone, **settings) as running, shoppers(running.gateway):
        yield running


def now(live: Live, expression: str) -> list:
    moment = time.time()
    return asking.ask(live.prometheus, expression, moment, moment, 1, VARIABLES)


def soon(live: Live, expression: str) -> list:
    """The value of an expression once the load has reached it; empty after a minute and a half."""
    deadline = time.monotonic() + 90
    while not (answer := now(live, expression)) and time.monotonic() < deadline:
        time.sleep(0.5)
    return answer


PANELS = [pytest.param(panel, id=f"{board.name}: {panel.title}") for board in BOARDS for panel in board.panels]


@pytest.mark.parametrize("panel", PANELS)
def test_panels_ask_what_prometheus_understands_and_show_something(live, panel):
    expected = panel.source == "papa" and not panel.eventful
    answers = [(soon if expected else now)(live, query.expression) for query in panel.queries]
    if expected:
        assert all(answers), [query.expression for query in panel.queries]
        assert all(math.isfinite(value) for series in answers for _, points in series for _, value in points)


def test_prometheus_evaluates_every_rule(live):
    evaluated = asking.rules(live.prometheus)
    assert len(evaluated) == len(rules(*PLAIN))
    assert [(rule["name"], rule["lastError"]) for rule in evaluated if rule["health"] != "ok"] == []


def test_every_recording_records(live):
    for rule in rules(*PLAIN):
        if "record" in rule and not rule["record"].startswith(EMPTY_WHILE_WELL):
            assert soon(live, rule["record"]), rule["record"]


def test_a_healthy_service_alerts_nobody(live):
    firing = [(rule["alert"], now(live, rule["expr"])) for rule in rules(*PLAIN) if rule.get("alert") in QUIET]
    assert [(name, series) for name, series in firing if series] == []


def test_series_do_not_grow_with_users(live):
    """No label contains the name of a user."""
    everything = now(live, '{__name__=~"papa_.*"}')
    assert everything
    values = {value for labels, _ in everything for value in labels.values()}
    assert not values & {"ada", "bob", "eve", "default"}


def test_a_dashboard_can_be_drawn(live, tmp_path):
    """The one that has panels of every form; `make dashboards` draws all."""
    (overview,) = [board for board in BOARDS if board.name == "overview"]
    assert {panel.form.value for panel in overview.panels} == {"lines", "stack", "number", "heat"}
    pictures.draw(overview, pictures.Source(live.prometheus), 1.0, tmp_path / "overview.png")
    assert (tmp_path / "overview.png").read_bytes().startswith(b"\x89PNG")


def test_rays_series_are_reduced_to_what_the_dashboard_shows(live):
    """Checks the chart's rules in Prometheus, on the metrics of a real Ray."""
    with urllib.request.urlopen(f"http://{live.ray}/metrics", timeout=30) as answer:
        offered = answer.read().decode()
    assert all(f'{label}="' in offered for label in PER_ID), "there must be something to drop"
    assert "ray_tasks{" in offered
    assert soon(live, "ray_serve_deployment_replica_healthy")
    kept = now(live, '{job="ray",__name__=~"ray_.+"}')
    names = {labels["__name__"] for labels, _ in kept}
    assert {"ray_node_cpu_utilization", "ray_node_mem_used"} <= names
    assert names <= set().union(*(asked_for(query.expression) for board in BOARDS for query in board.queries))
    assert not {label for labels, _ in kept for label in labels} & PER_ID
    assert len(kept) < 50 < len(offered.splitlines())


def test_each_replica_still_counts(live):
    """Two series that differ only in what is dropped would be one, and the second value would be lost."""
    replicas = soon(live, "sum by (deployment) (ray_serve_deployment_replica_healthy) > 0")
    assert {labels["deployment"]: points[-1][1] for labels, points in replicas} == {"generator": 2, "trainers": 1}
    with urllib.request.urlopen(f"http://{live.prometheus}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    (lost,) = [line for line in lines if line.startswith("prometheus_target_scrapes_sample_duplicate_timestamp_total")]
    assert float(lost.rpartition(" ")[2]) == 0


def test_the_smoke_test_of_the_chart_passes(live, capsys):
    assert run(["health", "--address", live.gateway]) == 0
    assert run(["smoke", "--address", live.gateway]) == 0
    assert "the service works" in capsys.readouterr().out
    assert run(["health", "--address", "127.0.0.1:1", "--timeout", "0.5"]) == 1
    assert "not serving" in capsys.readouterr().err
