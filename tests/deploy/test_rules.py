"""Rules and dashboards ask only for what exists; alerts have runbooks, and fire when they should and only then."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.alert_cases import CASES, HEAD, KUBERNETES_CASES, Case
from tests.deploy.rules import (
    DASHBOARDS,
    PLAIN,
    ROOT,
    RULES,
    alerts,
    asked_for,
    known_labels,
    known_series,
    program,
    rules,
)
from tests.helm.rendering import example, only, render

EXPORTERS = {
    "ray_node_cpu_utilization", "ray_node_mem_used", "ray_node_gpus_utilization", "ray_node_gram_used",
    "ray_node_gram_available", "ray_cluster_active_nodes", "ray_cluster_pending_nodes", "ray_cluster_failed_nodes",
    "ray_serve_deployment_replica_healthy",
    "kube_pod_owner", "kube_pod_status_ready", "kube_pod_status_phase",
    "kube_deployment_created", "kube_deployment_spec_replicas", "kube_deployment_status_replicas_available",
    "kube_deployment_status_replicas_updated", "kube_horizontalpodautoscaler_spec_max_replicas",
    "kube_horizontalpodautoscaler_spec_min_replicas", "kube_horizontalpodautoscaler_status_current_replicas",
    "kubelet_volume_stats_available_bytes", "kubelet_volume_stats_capacity_bytes",
    "kubelet_volume_stats_inodes", "kubelet_volume_stats_inodes_free",
    "kuberay_service_condition_ready", "kuberay_service_condition_upgrade_in_progress",
    "up",
}  # fmt: skip
"""What others measure, by the names of Ray 2.60, kube-state-metrics 2.13, the kubelet, KubeRay 1.6 and Prometheus."""

PRODUCTION, STAGING = ("production", "papa"), ("staging", "papa")
"""Namespace and release. Releases are named within their namespace, so that two may well have one name."""


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
    index = (ROOT / "docs" / "runbooks" / "README.md").read_text()
    assert set(pages) == {alert["alert"] for alert in alerts()}
    for alert in alerts():
        name = alert["alert"]
        assert f"[{name}]({name}.md)" in index
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


def test_runbooks_name_no_fixed_release():
    """Whoever is woken reads the release and its namespace from the alert."""
    for page in (ROOT / "docs" / "runbooks").glob("*.md"):
        for command in re.findall(r"`((?:kubectl|helm|papa) [^`]*)`", page.read_text()):
            assert not re.search(r"(?<![/\w])papa-|rollback papa|rayservice papa|test papa", command), (
                page.name,
                command,
            )


def test_every_selector_says_of_which_release():
    """In the plain files by the matcher that the chart replaces; what Kubernetes measures has a namespace."""
    for rule in rules(*PLAIN):
        for name, matchers in re.findall(r"\b((?:papa[_:]|up\b)[\w:]*)(\{[^}]*\})?", rule["expr"]):
            assert 'release=~".*"' in matchers, (rule["expr"], name)
        assert re.search(r"by \(namespace, release|release=~\".\*\"", rule["expr"])
    for rule in rules(RULES / "kubernetes.yaml"):
        for name, matchers in re.findall(r"\b((?:papa[_:]|up\b|kube)[\w:]*)(\{[^}]*\})?", rule["expr"]):
            assert 'namespace="NAMESPACE"' in matchers, (rule["expr"], name)


def test_prometheus_accepts_the_rules():
    done = subprocess.run(
        [program("promtool"), "check", "rules", *map(str, RULES.glob("*.yaml"))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_firing_and_a_quiet_case():
    """And a firing one for each severity."""
    every = (*CASES, *KUBERNETES_CASES)
    assert {(case.alert, severity) for case in every for severity in _severities(case)} == {
        (alert["alert"], alert["labels"]["severity"]) for alert in alerts()
    }
    assert {case.alert for case in every if not case.fires} == {alert["alert"] for alert in alerts()}


@pytest.mark.parametrize("namespace", ["papa", "production"])
def test_the_chart_puts_its_release_into_every_rule(namespace):
    rule = only(render(example("production"), "shop", namespace), "PrometheusRule")
    text = json.dumps(rule["spec"])
    assert not re.search("NAMESPACE|RELEASE|FULLNAME|CLAIMS|example.com/papa/runbooks", text)
    assert "release=~" not in text and f'namespace=\\"{namespace}\\",release=\\"shop\\"' in text
    assert 'deployment=\\"shop-papa-gateway\\"' in text and "shop-papa-revisions|" in text
    assert sum(len(group["rules"]) for group in rule["spec"]["groups"]) == len(rules())
    assert "https://runbooks.example.com/papa/PapaHeadAbsent.md" in text


def test_alerts_fire_for_the_release_that_is_ill_and_for_no_other(tmp_path):
    """Two installations of the chart under one Prometheus, each with its own rules."""
    files = [_rendered(tmp_path, *which) for which in (PRODUCTION, STAGING)]
    assert _promtool(tmp_path, files, [_put(case) for case in (*CASES, *KUBERNETES_CASES)]) == ""


def test_the_plain_rules_tell_releases_apart_as_well(tmp_path):
    """As compose uses them, whoever else is scraped by the same Prometheus."""
    assert _promtool(tmp_path, list(PLAIN), [_put(case) for case in CASES]) == ""


def test_two_releases_in_one_namespace_have_pods_of_their_own(tmp_path):
    files = [_rendered(tmp_path, "production", release) for release in ("papa", "papa-canary")]
    pods = {"papa": "0x60", "papa-canary": "1x60"}
    series = {}
    for name, ready in pods.items():
        pod = HEAD.replace("papa", name)
        series[
            f'kube_pod_owner{{namespace="production",pod="{pod}",owner_kind="RayCluster",owner_name="{name}-abcde"}}'
        ] = "1x60"
        series[f'kube_pod_status_ready{{namespace="production",pod="{pod}",condition="true"}}'] = ready
    case = Case("PapaHeadAbsent", True, "30m", {})
    assert _promtool(tmp_path, files, [_case(case, series, ("production", "papa"))]) == ""


def _rendered(folder: Path, namespace: str, release: str) -> Path:
    """The rules that the chart installs for a release."""
    path = folder / f"{namespace}-{release}.yaml"
    path.write_text(yaml.safe_dump(only(render(example("production"), release, namespace), "PrometheusRule")["spec"]))
    return path


def _promtool(folder: Path, files: list[Path], tests: list[dict[str, object]]) -> str:
    """What promtool has against these expectations."""
    document = {"rule_files": [str(path) for path in files], "evaluation_interval": "1m", "tests": tests}
    (folder / "cases.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    done = subprocess.run(
        [program("promtool"), "test", "rules", str(folder / "cases.yaml")], capture_output=True, text=True, check=False
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


def _put(case: Case) -> dict[str, object]:
    """The case is production's; staging is well where production is ill, and the same where it is well."""
    every = (*CASES, *KUBERNETES_CASES)
    well = next(each.series for each in every if each.alert == case.alert and not each.fires)
    other = case.other if case.other is not None else well if case.fires else case.series
    return _case(case, _of_release(case.series, *PRODUCTION) | _of_release(other, *STAGING), PRODUCTION)


def _case(case: Case, series: Mapping[str, str], ill: tuple[str, str]) -> dict[str, object]:
    """As promtool wants it; it fails when any other alert of that name fires as well."""
    labels = {"namespace": ill[0], "release": ill[1], **case.labels}
    chosen = [
        each for each in alerts() if each["alert"] == case.alert and each["labels"]["severity"] in _severities(case)
    ]
    expected = [_expected(each, labels) for each in {each["labels"]["severity"]: each for each in chosen}.values()]
    return {
        "name": f"{case.alert} {'fires' if case.fires else 'is quiet'}: {dict(case.series)}",
        "interval": case.interval,
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "alert_rule_test": [
            {"eval_time": case.at, "alertname": case.alert, "exp_alerts": expected if case.fires else []}
        ],
    }


def _severities(case: Case) -> tuple[str, ...]:
    """Of the rules that fire: those of the case, or the only one of its alert."""
    if case.severities or not case.fires:
        return case.severities
    (only_one,) = {alert["labels"]["severity"] for alert in alerts() if alert["alert"] == case.alert}
    return (only_one,)


def _expected(alert: dict[str, Any], labels: dict[str, str]) -> dict[str, object]:
    texts = {
        name: re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda found: labels.get(found[1], ""), text)
        for name, text in alert["annotations"].items()
    }
    return {"exp_labels": {**labels, "severity": alert["labels"]["severity"]}, "exp_annotations": texts}


def _of_release(series: Mapping[str, str], namespace: str, release: str) -> dict[str, str]:
    """With the labels that the chart's monitors add; what Kubernetes measures has only the namespace."""
    labelled = {}
    for name, values in series.items():
        metric, _, labels = name.rstrip("}").partition("{")
        own = f'namespace="{namespace}"' + ("" if metric.startswith("kube") else f',release="{release}"')
        labelled[f"{metric}{{{','.join(filter(None, (labels, own)))}}}"] = values
    return labelled
