"""Rules and dashboards ask only for what exists; alerts have runbooks, and fire when they should and only then."""

from __future__ import annotations

import json
import re
import subprocess

import pytest
import yaml

from tests.deploy.alert_cases import CASES, Case
from tests.deploy.rules import DASHBOARDS, ROOT, RULES, alerts, asked_for, known_labels, known_series, program, rules

EXPORTERS = {
    "redis_memory_used_bytes", "redis_memory_max_bytes", "redis_commands_processed_total", "redis_aof_enabled",
    "redis_aof_last_write_status",
    "ray_node_cpu_utilization", "ray_node_mem_used", "ray_node_gpus_utilization", "ray_node_gram_used",
    "ray_node_gram_available", "ray_cluster_active_nodes", "ray_cluster_pending_nodes", "ray_cluster_failed_nodes",
    "ray_serve_deployment_replica_healthy",
    "up",
}  # fmt: skip
"""What others measure, by the names of redis_exporter 1.74, Ray 2.60 and Prometheus."""


def expressions() -> list[str]:
    found = [rule["expr"] for rule in rules()]
    for path in DASHBOARDS.glob("*.json"):
        board = json.loads(path.read_text())
        found += [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    return found


def test_every_series_asked_for_exists():
    asked = set().union(*map(asked_for, expressions()))
    assert asked - known_series() - EXPORTERS == set()
    assert {name for name in asked if name.startswith("papa_rpc")}


def test_every_label_grouped_by_exists():
    labels = known_labels()
    for expression in expressions():
        for group, body in re.findall(r"by \(([^)]*)\) \((?:rate\()?(papa_\w+)", expression):
            series = re.sub(r"_(total|bucket|sum|count)$", "", body)
            wanted = {label.strip() for label in group.split(",") if label.strip()}
            assert wanted <= labels[series], expression


def test_every_metric_is_shown_or_watched():
    """A metric that nobody looks at is noise; a histogram counts with any of its series."""
    asked = set().union(*map(asked_for, expressions()))
    stems = {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in asked}
    assert set(known_labels()) - stems == set()


def test_no_metric_names_a_user():
    assert not {label for labels in known_labels().values() for label in labels} & {
        "user",
        "tenant",
        "item",
        "revision",
    }


def test_the_chart_keeps_what_the_dashboards_ask_of_ray():
    monitors = (ROOT / "helm" / "papa" / "templates" / "monitoring" / "monitors.yaml").read_text()
    (kept,) = re.findall(r"regex: (ray_\S+)", monitors)
    wanted = {name for expression in expressions() for name in asked_for(expression) if name.startswith("ray_")}
    assert wanted and all(re.fullmatch(kept, name) for name in wanted)
    assert not re.fullmatch(kept, "ray_serve_registered_multiplexed_model_id")


def test_alerts_have_runbooks_and_runbooks_have_alerts():
    pages = {path.stem: path.read_text() for path in (ROOT / "docs" / "runbooks").glob("Papa*.md")}
    assert set(pages) == set(alerts())
    for name, alert in alerts().items():
        assert alert["annotations"]["runbook_url"].endswith(f"/{name}.md")
        assert alert["labels"]["severity"] in ("warning", "critical")
        for heading in ("What it means", "What to look at", "What to do"):
            assert f"## {heading}\n" in pages[name], name
        assert alert["annotations"]["summary"] in pages[name]


def test_runbooks_name_what_exists():
    """Links lead to pages, and metrics and settings in code quotes are real."""
    folder = ROOT / "docs" / "runbooks"
    for page in folder.glob("*.md"):
        text = page.read_text()
        for link in re.findall(r"\]\(([\w./-]+)\)", text):
            assert (folder / link).exists(), (page.name, link)
        assert set(re.findall(r"`(papa_\w+)`", text)) <= known_series() | set(known_labels()), page.name


def test_prometheus_accepts_the_rules():
    done = subprocess.run(
        [program("promtool"), "check", "rules", str(RULES)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_firing_and_a_quiet_case():
    assert {case.alert for case in CASES} == set(alerts())
    for name in alerts():
        assert {case.fires for case in CASES if case.alert == name} == {True, False}, name


@pytest.fixture(scope="module")
def outcome(tmp_path_factory) -> str:
    """One run of promtool over all cases."""
    folder = tmp_path_factory.mktemp("rules")
    document = {"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [_promtool(case) for case in CASES]}
    (folder / "cases.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    done = subprocess.run(
        [program("promtool"), "test", "rules", str(folder / "cases.yaml")], capture_output=True, text=True, check=False
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_alerts_fire_when_they_should_and_only_then(outcome):
    assert outcome == ""


def _promtool(case: Case) -> dict[str, object]:
    alert = alerts()[case.alert]
    labels = {**alert["labels"], **case.labels}
    expected = [{"exp_labels": labels, "exp_annotations": alert["annotations"]}] if case.fires else []
    return {
        "name": f"{case.alert} {'fires' if case.fires else 'is quiet'}",
        "interval": "1m",
        "input_series": [{"series": series, "values": values} for series, values in case.series.items()],
        "alert_rule_test": [{"eval_time": case.at, "alertname": case.alert, "exp_alerts": expected}],
    }
