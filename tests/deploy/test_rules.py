"""Rules and dashboards ask only for what exists; alerts have runbooks, and fire when they should and only then."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
import yaml
from papa_serving.cli.app import app
from papa_serving.gateway.api.generation import ONE_OF_MANY
from typer.main import get_command

from tests.deploy.alert_cases import CASES, Case
from tests.deploy.kubernetes_cases import HEAD, KUBERNETES_CASES, SEEN_WHILE_A_POD_PULLS
from tests.deploy.objective_cases import OBJECTIVE_CASES
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
from tests.helm.rendering import example, merged, only, render

EXPORTERS = {
    "redis_memory_used_bytes", "redis_memory_max_bytes", "redis_commands_processed_total", "redis_aof_enabled",
    "redis_aof_last_write_status",
    "ray_node_cpu_utilization", "ray_node_mem_used", "ray_node_gpus_utilization", "ray_node_gram_used",
    "ray_node_gram_available", "ray_cluster_active_nodes", "ray_cluster_pending_nodes", "ray_cluster_failed_nodes",
    "ray_serve_deployment_replica_healthy",
    "kube_pod_owner", "kube_pod_status_ready", "kube_pod_status_phase",
    "kube_deployment_created", "kube_deployment_spec_replicas", "kube_deployment_status_replicas_available",
    "kube_deployment_status_condition", "kube_deployment_status_replicas_updated",
    "kube_horizontalpodautoscaler_spec_max_replicas",
    "kube_horizontalpodautoscaler_spec_min_replicas", "kube_horizontalpodautoscaler_status_current_replicas",
    "kubelet_volume_stats_available_bytes", "kubelet_volume_stats_capacity_bytes",
    "kubelet_volume_stats_inodes", "kubelet_volume_stats_inodes_free",
    "kuberay_service_condition_ready", "kuberay_service_condition_upgrade_in_progress",
    "up",
}  # fmt: skip
"""What others measure: redis_exporter 1.74, Ray 2.60, kube-state-metrics 2.13, the kubelet, KubeRay 1.6, Prometheus."""

RUNBOOKS = "https://example.com/papa/runbooks"
PRODUCTION, STAGING = ("production", "papa"), ("staging", "papa")
"""Namespace and release. Releases are named within their namespace, so that two may well have one name."""
BY_FILE: dict[str, tuple[Case, ...]] = {
    "papa": CASES,
    "objectives": OBJECTIVE_CASES,
    "kubernetes": KUBERNETES_CASES,
}
EVERY = tuple(case for cases in BY_FILE.values() for case in cases)


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
        assert _in_a_runbook(alert["annotations"]["summary"]) in " ".join(pages[name].split()), name
        assert f"Severity: {_named_severities(name)}." in " ".join(pages[name].split()), name
        assert f"| [{name}]({name}.md) | {_named_severities(name)} |" in index, name


def test_summaries_are_one_sentence_that_names_namespace_and_release():
    for alert in alerts():
        summary = alert["annotations"]["summary"]
        assert re.fullmatch(r"[A-Z][^!?]*[^.]\.", summary) and ". " not in summary, summary
        assert "`$NAMESPACE`" in _in_a_runbook(summary) and "`$RELEASE`" in _in_a_runbook(summary), summary


def test_runbooks_name_what_exists():
    """Links lead to pages, and metrics and settings in code quotes are real."""
    folder = ROOT / "docs" / "runbooks"
    for page in folder.glob("*.md"):
        text = page.read_text()
        for link in re.findall(r"\]\(([\w./-]+)\)", text):
            assert (folder / link).exists(), (page.name, link)
        assert set(re.findall(r"`(papa_\w+)`", text)) <= known_series() | set(known_labels()), page.name


def test_runbooks_begin_with_a_command():
    """Of kubectl in the release's namespace, of helm, or of what the index page defines."""
    for page in (ROOT / "docs" / "runbooks").glob("Papa*.md"):
        (first,) = re.findall(r"^## What to look at\n\n1\. `([^`]+)`", page.read_text(), flags=re.MULTILINE)
        assert re.match(r"(kubectl -n \$NAMESPACE|helm -n \$NAMESPACE|\$PAPA|\$REDIS) ", first), (page.name, first)


def test_commands_of_runbooks_exist():
    """Subcommands of papa, and components of the chart that pods are selected by; kubectl says in which namespace."""
    manifests = render(example("dev"))
    components = set(re.findall(r"app.kubernetes.io/component: ([\w-]+)", yaml.safe_dump_all(manifests)))
    commands = get_command(app)
    for page in (ROOT / "docs" / "runbooks").glob("*.md"):
        text = page.read_text()
        assert set(re.findall(r"component=([\w-]+)", text)) <= components, page.name
        for words in re.findall(r"`(?:\$PAPA|papa) ([a-z ]+)", text):
            _resolved(commands, words.split(), page.name)
        for command in re.findall(r"`(kubectl [^`]*)`", text):
            wide = r"kubectl (cordon|get storageclass|(get|logs)( \w+)? -A)"
            assert "-n $NAMESPACE " in command or re.match(wide, command), (page.name, command)


def _resolved(command: Any, words: Sequence[str], page: str) -> None:
    """Follows the words into groups of commands; what comes after a command is its arguments."""
    for word in words:
        if (commands := getattr(command, "commands", None)) is None:
            return
        assert word in commands, (page, word)
        command = commands[word]


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


def test_every_panel_says_of_which_release():
    """Every selector has both variables, and the variables take their values from what the gateways say."""
    for path in DASHBOARDS.glob("*.json"):
        board = json.loads(path.read_text())
        for panel in board["panels"]:
            for target in panel.get("targets", []):
                for name in asked_for(target["expr"]):
                    selectors = re.findall(rf"\b{name}(?![\w:])(\{{[^}}]*\}})?", target["expr"])
                    assert all('namespace="$namespace",release="$release"' in each for each in selectors), target
        variables = {each["name"]: each.get("query") for each in board["templating"]["list"]}
        assert variables["namespace"] == "label_values(papa_build_info, namespace)"
        assert variables["release"] == 'label_values(papa_build_info{namespace="$namespace"}, release)'


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
    for name, cases in BY_FILE.items():
        known = alerts(RULES / f"{name}.yaml")
        fired = {(case.alert, severity) for case in cases for severity in _severities(case)}
        assert fired == {(alert["alert"], alert["labels"]["severity"]) for alert in known}
        assert {case.alert for case in cases if not case.fires} == {alert["alert"] for alert in known}


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
    installed = [*_installed(*PRODUCTION), *_installed(*STAGING)]
    assert _promtool(tmp_path, installed, EVERY) == ""


def test_the_plain_rules_tell_releases_apart_as_well(tmp_path):
    """As compose uses them, whoever else is scraped by the same Prometheus."""
    names = {alert["alert"] for alert in alerts(*PLAIN)}
    assert _promtool(tmp_path, rules(*PLAIN), [case for case in EVERY if case.fires and case.alert in names]) == ""


def test_two_releases_in_one_namespace_have_pods_of_their_own(tmp_path):
    installed = [rule for release in ("papa", "papa-canary") for rule in _installed("production", release)]
    series = {}
    for name, ready in {"papa": "0x60", "papa-canary": "1x60"}.items():
        pod = f'namespace="production",pod="{HEAD.replace("papa", name)}"'
        series[f'kube_pod_owner{{{pod},owner_kind="RayCluster",owner_name="{name}-abcde"}}'] = "1x60"
        series[f'kube_pod_status_ready{{{pod},condition="true"}}'] = ready
    tests = [_test(Case("PapaHeadAbsent", True, "30m", {}), series)]
    assert _run([_written(tmp_path, "pods", installed, "1m", tests)]) == ""


def test_a_pod_that_pulls_its_image_for_five_minutes_pages_nobody(tmp_path):
    """No critical alert of any name fires, at any minute of it and of what follows."""
    critical = {alert["alert"] for alert in alerts() if alert["labels"]["severity"] == "critical"}
    quiet = [
        {"eval_time": f"{minute}m", "alertname": name, "exp_alerts": []}
        for name in sorted(critical)
        for minute in range(60, 80)
    ]
    series = _listed(_of_release(SEEN_WHILE_A_POD_PULLS, *PRODUCTION))
    tests = [{"interval": "1m", "input_series": series, "alert_rule_test": quiet}]
    assert _run([_written(tmp_path, "pulls", _installed(*PRODUCTION), "1m", tests)]) == ""


@cache
def _installed(namespace: str, release: str) -> list[dict[str, Any]]:
    """The rules that the chart installs for a release."""
    values = merged(example("production"), {"metrics": {"rules": {"runbookUrl": RUNBOOKS}}})
    spec = only(render(values, release, namespace), "PrometheusRule")["spec"]
    return [rule for group in spec["groups"] for rule in group["rules"]]


def _promtool(folder: Path, available: Sequence[dict[str, Any]], cases: Sequence[Case]) -> str:
    """What promtool has against these cases, each put to two releases.

    Promtool evaluates all rules that it is given, for every case: an alert gets those that it needs, which is ten times
    faster than all.
    """
    files = []
    for (name, interval), some in groupby(
        sorted(cases, key=lambda case: (case.alert, case.interval)), key=lambda case: (case.alert, case.interval)
    ):
        needed = _needed(name, available)
        files.append(_written(folder, f"{name}-{interval}", needed, interval, [_put(case) for case in some]))
    return _run(files)


def _needed(alert: str, available: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rules of an alert after the recordings that they ask for, and those that these ask for."""
    found = [rule for rule in available if rule.get("alert") == alert]
    while more := [
        rule
        for rule in available
        if rule not in found and any(rule.get("record") in asked_for(each["expr"]) for each in found)
    ]:
        found = [*more, *found]
    return found


def _written(
    folder: Path, name: str, chosen: Sequence[dict[str, Any]], interval: str, tests: Sequence[dict[str, object]]
) -> Path:
    """A file of promtool's tests, and one with the rules, which are evaluated so often."""
    group = {"name": "chosen", "rules": list(chosen)}
    (folder / f"{name}-rules.yaml").write_text(yaml.safe_dump({"groups": [group]}))
    document = {"rule_files": [f"{name}-rules.yaml"], "evaluation_interval": interval, "tests": list(tests)}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    return folder / f"{name}.yaml"


def _run(files: Sequence[Path]) -> str:
    command = [program("promtool"), "test", "rules", *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def _put(case: Case) -> dict[str, object]:
    """The case is production's; staging is well where production is ill, and the same where it is well."""
    well = next(each.series for each in EVERY if each.alert == case.alert and not each.fires)
    other = case.other if case.other is not None else well if case.fires else case.series
    return _test(case, _of_release(case.series, *PRODUCTION) | _of_release(other, *STAGING))


def _test(case: Case, series: Mapping[str, str]) -> dict[str, object]:
    """As promtool wants it; it fails when any other alert of that name fires as well."""
    labels = {"namespace": PRODUCTION[0], "release": PRODUCTION[1], **case.labels}
    chosen = [
        each for each in alerts() if each["alert"] == case.alert and each["labels"]["severity"] in _severities(case)
    ]
    expected = [_expected(each, labels) for each in {each["labels"]["severity"]: each for each in chosen}.values()]
    return {
        "name": f"{case.alert} {'fires' if case.fires else 'is quiet'}: {dict(case.series)}",
        "interval": case.interval,
        "input_series": _listed(series),
        "alert_rule_test": [
            {"eval_time": case.at, "alertname": case.alert, "exp_alerts": expected if case.fires else []}
        ],
    }


def _listed(series: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"series": name, "values": values} for name, values in series.items()]


def _severities(case: Case) -> tuple[str, ...]:
    """Of the rules that fire: those of the case, or the only one of its alert."""
    if case.severities or not case.fires:
        return case.severities
    (only_one,) = {alert["labels"]["severity"] for alert in alerts() if alert["alert"] == case.alert}
    return (only_one,)


def _expected(alert: dict[str, Any], labels: dict[str, str]) -> dict[str, object]:
    texts = {
        name: re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda found: labels.get(found[1], ""), _of(text, *PRODUCTION))
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


def _in_a_runbook(summary: str) -> str:
    """With the variables of the runbooks in place of the alert's labels."""
    named = _of(summary, "`$NAMESPACE`", "`$RELEASE`")
    return re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda found: f"`${found[1].upper()}`", named)


def _of(text: str, namespace: str, release: str) -> str:
    """A text of the rules that the chart fills in."""
    return re.sub(r"\bNAMESPACE\b", namespace, re.sub(r"\bRELEASE\b", release, text))


def _named_severities(name: str) -> str:
    """Of the rules of this name: "warning", "critical", or both."""
    return " or ".join(
        sorted((alert["labels"]["severity"] for alert in alerts() if alert["alert"] == name), reverse=True)
    )


def test_the_objectives_of_generations_count_every_way_to_ask_for_one():
    """Also each one of a GenerateMany, whose call ends well when one of its generations fails."""
    patterns = set(re.findall(r'method=~"([^"]*Generate[^"]*)"', " ".join(expressions())))
    assert patterns
    for pattern in patterns:
        for method in ("GenerationService/Generate", "GenerationService/StreamGenerate", ONE_OF_MANY):
            assert re.fullmatch(pattern, method), pattern
