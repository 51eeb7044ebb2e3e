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
RULES = ROOT / "helm" / "papa" / "files" / "rules" / "papa.yaml"
DASHBOARDS = ROOT / "helm" / "papa" / "files" / "dashboards"
_NAME = re.compile(r"\b(?:papa[_:]|redis_|ray_|up\b)[a-zA-Z0-9_:]*")
_QUOTED = re.compile(r'"[^"]*"')


def program(name: str) -> str:
    """The path of a program of Debian's prometheus package."""
    path = shutil.which(name)
    if path is None:
        absent.skip(f"{name} is not installed", absent.SYSTEM_PACKAGES)
    return path


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


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
            added = {"instance", "job"} | ({"le"} if isinstance(each, Histogram) else set())
            labels[described.name] = set(each._labelnames) | added
    return labels


def asked_for(expression: str) -> set[str]:
    """Names of the series in an expression, ours and exporters'."""
    return set(_NAME.findall(_QUOTED.sub("", expression)))
