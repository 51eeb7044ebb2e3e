"""Every panel and every rule, asked of a real Prometheus that scrapes the real service under load."""

from __future__ import annotations

import importlib
import math
import sys
import time

import pytest

from services.cli.app import run
from tests.deploy.live_service import Live, live_service, shoppers
from tests.deploy.rules import ROOT, rules
from tests.trainer.tiny_backbone import write_tiny_backbone

sys.path.insert(0, str(ROOT / "deploy" / "grafana"))
asking = importlib.import_module("asking")
BOARDS = importlib.import_module("generate").BOARDS

WINDOW = "20s"
QUIET = ("PapaTargetDown", "PapaGatewayAbsent", "PapaFeedbackRefused", "PapaNobodyTrains", "PapaDeadLetters",
         "PapaUpdatesFailing", "PapaAdapterRefused", "PapaGeneratorStalled")  # fmt: skip
"""Alerts that say something about right and wrong, not about the speed of the machine that runs this test."""
EMPTY_WHILE_WELL = ("papa:rpc_errors:ratio_rate5m", "papa:updates_refused:ratio_rate30m")


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    folder = tmp_path_factory.mktemp("live")
    settings = {
        "trainer.min_labels": "2", "trainer.max_wait": "0.2", "trainer.gate.probe_samples": "0",
        "feedback.partitions": "4", "generator.steps": "4", "generator.threads": "1",
    }  # fmt: skip
    backbone = str(write_tiny_backbone(folder / "backbone"))
    with live_service(folder, backbone, **settings) as running, shoppers(running.gateway):
        yield running


def now(live: Live, expression: str) -> list:
    moment = time.time()
    return asking.ask(live.prometheus, expression, moment, moment, 1, WINDOW)


def soon(live: Live, expression: str) -> list:
    """What an expression gives once the load has reached it; nothing after a minute and a half."""
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
    assert len(evaluated) == len(rules())
    assert [(rule["name"], rule["lastError"]) for rule in evaluated if rule["health"] != "ok"] == []


def test_every_recording_records(live):
    for rule in rules():
        if "record" in rule and rule["record"] not in EMPTY_WHILE_WELL:
            assert soon(live, rule["record"]), rule["record"]


def test_a_healthy_service_alerts_nobody(live):
    firing = {rule["alert"]: now(live, rule["expr"]) for rule in rules() if rule.get("alert") in QUIET}
    assert {name: series for name, series in firing.items() if series} == {}


def test_series_do_not_grow_with_users(live):
    """No label's value names a user of the load."""
    everything = now(live, '{__name__=~"papa_.*"}')
    assert everything
    values = {value for labels, _ in everything for value in labels.values()}
    assert not values & {"ada", "bob", "eve", "default"}


def test_the_smoke_test_of_the_chart_passes(live, capsys):
    assert run(["health", "--address", live.gateway]) == 0
    assert run(["smoke", "--address", live.gateway]) == 0
    assert "the service works" in capsys.readouterr().out
    assert run(["health", "--address", "127.0.0.1:1", "--timeout", "0.5"]) == 1
    assert "not serving" in capsys.readouterr().err
