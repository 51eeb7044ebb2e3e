"""What every test starts from: the defaults, what a test needs as a marker, and a table of what was skipped."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from tests import absent

for variable in [name for name in os.environ if name.startswith("PAPA_")]:
    del os.environ[variable]

ROOT = Path(__file__).parent
FIXTURES = {
    "redis": {"redis_server", "redis_backend", "redis_cluster", "raw"},
    "browser": {"browser", "page"},
}
"""Marker → fixtures, any of which starts such a thing."""

MODULES = {
    "redis": (
        "chaos/test_chaos.py", "cli/test_up.py", "cluster", "deploy/test_live.py", "demo",
        "attack", "docs/test_against_a_service.py", "docs/test_recommender.py", "feedback/test_redis_",
        "feedback/test_state_machine.py", "fuzz", "gateway/test_memory.py", "gateway/test_real_storage.py",
        "generator/test_deployment.py", "helm/test_commands.py", "helm/test_deployment.py",
        "local/test_redis_check.py", "local/test_service.py", "loop", "packaging/test_wheel.py",
        "playground/test_page.py", "store/test_redis_", "store/test_census.py", "trainer/test_actor.py",
        "trainer/test_crashes.py",
    ),
    "ray": (
        "cli/test_up.py", "cluster", "deploy/test_live.py", "demo", "docs/test_against_a_service.py",
        "docs/test_recommender.py", "generator/test_deployment.py", "helm/test_deployment.py",
        "local/test_ray_token.py", "local/test_service.py", "loop", "packaging/test_wheel.py",
        "playground/test_page.py", "trainer/test_actor.py",
    ),
    "browser": ("playground/test_page.py", "playground/test_screenshots.py"),
    "prometheus": ("deploy/test_rules.py", "deploy/test_live.py", "deploy/test_pictures.py"),
    "slow": ("attack", "benchmarks", "chaos", "fuzz", "packaging/test_wheel.py", "docs/test_site.py"),
}  # fmt: skip
"""Marker → the beginnings of the paths, below this folder, of modules that are so as a whole."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks each test with what it needs, so that `-m "not ray"` leaves out all that would start a Ray."""
    for item in items:
        for marker in _needs(item):
            item.add_marker(marker)


def _needs(item: pytest.Item) -> set[str]:
    path = item.path.relative_to(ROOT).as_posix()
    found = {marker for marker, paths in MODULES.items() if path.startswith(paths)}
    fixtures = set(getattr(item, "fixturenames", ()))
    found |= {marker for marker, names in FIXTURES.items() if names & fixtures}
    variant = getattr(item, "callspec", None)
    if variant is not None and {"redis", "cluster"} & set(variant.id.split("-")):
        found.add("redis")
    return found


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says what was skipped, why, and what would bring it."""
    skipped = Counter(absent.split(str(report.longrepr[2])) for report in terminalreporter.stats.get("skipped", []))
    if not skipped:
        return
    terminalreporter.section("skipped")
    for (why, command), count in sorted(skipped.items(), key=lambda each: (-each[1], each[0])):
        terminalreporter.line(f"{count:5}  {why}")
        if command:
            terminalreporter.line(f"       {command}")
