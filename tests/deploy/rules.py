"""The alert and recording rules, and what they and the dashboards ask for."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import yaml
from papa_serving import metrics
from prometheus_client import Histogram
from prometheus_client.metrics import MetricWrapperBase

from tests import absent

ROOT = Path(__file__).parents[2]
RULES = ROOT / "helm" / "papa" / "files" / "rules"
PLAIN = (RULES / "papa.yaml", RULES / "objectives.yaml")
"""Rules that work without Kubernetes, as they are."""
DASHBOARDS = ROOT / "helm" / "papa" / "files" / "dashboards"
SCRAPED = {"instance", "job", "namespace", "pod", "release"}
"""Labels that every scrape adds."""
_NAME = re.compile(r"\b(?:papa[_:]|redis_|ray_|kube_|kubelet_|kuberay_|up\b)[a-zA-Z0-9_:]*")
_QUOTED = re.compile(r'"[^"]*"')


def program(name: str) -> str:
    """The path of a program of Debian's prometheus package."""
    path = shutil.which(name)
    if path is None:
        absent.skip(f"{name} is not installed", absent.SYSTEM_PACKAGES)
    return path


def rules(*paths: Path) -> list[dict[str, Any]]:
    """Of these files, or of all."""
    chosen = paths or tuple(sorted(RULES.glob("*.yaml")))
    return [
        rule
        for path in chosen
        for group in yaml.load(path.read_text(), yaml.CSafeLoader)["groups"]
        for rule in group["rules"]
    ]


def alerts(*paths: Path) -> list[dict[str, Any]]:
    """Alerting rules; a name may have one for each severity."""
    return [rule for rule in rules(*paths) if "alert" in rule]


def known_series() -> set[str]:
    """The names under which Prometheus stores what services/papa_serving/metrics.py defines, and the recordings."""
    names = {rule["record"] for rule in rules() if "record" in rule}
    for each in vars(metrics).values():
        if isinstance(each, MetricWrapperBase):
            (described,) = each.describe()
            if isinstance(each, Histogram):
                names |= {f"{described.name}_{part}" for part in ("bucket", "sum", "count")}
            else:
                names.add(described.name + ("_total" if described.type == "counter" else ""))
    return names


def known_labels() -> dict[str, set[str]]:
    """Series of services/papa_serving/metrics.py to their labels, with those that every scrape adds."""
    labels = {}
    for each in vars(metrics).values():
        if isinstance(each, MetricWrapperBase):
            (described,) = each.describe()
            added = {"instance", "job", "namespace", "pod", "release"} | (
                {"le"} if isinstance(each, Histogram) else set()
            )
            labels[described.name] = set(each._labelnames) | added
    return labels


def asked_for(expression: str) -> set[str]:
    """Names of the series in an expression, ours and exporters'."""
    return set(_NAME.findall(_QUOTED.sub("", expression)))
