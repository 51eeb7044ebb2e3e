"""Asks a Prometheus what a panel asks it, as Grafana would at this moment."""

from __future__ import annotations

import json
import math
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any

Series = tuple[dict[str, str], list[tuple[float, float]]]
"""Labels, and (Unix time, value) in order; values that are not finite are left out."""


class QueryFailed(Exception):
    """Prometheus refuses an expression; the message is its own."""


def ask(
    address: str, expression: str, begin: float, end: float, step: float, variables: Mapping[str, str]
) -> list[Series]:
    """The series of an expression between two Unix times, with Grafana's variables (`__rate_interval`, `release`)."""
    for name, value in variables.items():
        expression = expression.replace(f"${name}", value)
    query = {"query": expression, "start": begin, "end": end, "step": step}
    found = _get(address, "query_range", query)["result"]
    series = [(each["metric"], [(t, float(value)) for t, value in each["values"]]) for each in found]
    finite = [(labels, [(t, value) for t, value in points if math.isfinite(value)]) for labels, points in series]
    return [(labels, points) for labels, points in finite if points]


def rules(address: str) -> list[dict[str, Any]]:
    """Every rule with its `health` and `lastError`."""
    return [rule for group in _get(address, "rules", {})["groups"] for rule in group["rules"]]


def _get(address: str, path: str, query: Mapping[str, object]) -> Any:
    url = f"http://{address}/api/v1/{path}?{urllib.parse.urlencode(query)}"
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return json.load(answer)["data"]
    except urllib.error.HTTPError as refused:
        raise QueryFailed(f"{query.get('query', path)}: {refused.read().decode()}") from refused
