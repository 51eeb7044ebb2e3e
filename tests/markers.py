"""Markers by requirement, so that `-m "not ray"` leaves out every test that would start a Ray.

The markers are given by file, by fixture and by the variant of a test. What is forgotten here is found when it runs: a
test fails that starts such a program without its marker.
"""

from __future__ import annotations

import os
import re
import sys
from itertools import combinations
from pathlib import Path

import pytest
from _pytest.mark.expression import Expression

from tests import lanes

TESTS = Path(__file__).parent

FIXTURES = {
    "redis": {"redis_server", "redis_backend", "redis_cluster", "raw"},
    "browser": {"browser", "page"},
}
"""Marker → fixtures, any of which starts such a thing."""

MODULES = {
    "redis": (
        "attack", "chaos/test_chaos.py", "cli/test_doctor.py", "cli/test_up.py", "cluster", "deploy/test_live.py",
        "docs/test_operations.py", "feedback/test_redis_",
        "feedback/test_state_machine.py", "fuzz", "gateway/test_memory.py", "gateway/test_real_storage.py",
        "generator/test_deployment.py", "helm/test_commands.py",
        "local/test_redis_", "local/test_service.py", "loop", "packaging/test_wheel.py",
        "playground/test_page.py", "store/test_redis_", "store/test_census.py", "trainer/test_actor.py",
        "trainer/test_crashes.py",
    ),
    "ray": lanes.RAY,
    "browser": ("playground/test_page.py", "playground/test_screenshots.py"),
    "prometheus": (
        "deploy/test_alertmanager.py", "deploy/test_compose.py", "deploy/test_live.py", "deploy/test_pictures.py",
        "deploy/test_rules.py",
    ),
    "slow": (
        "attack", "benchmarks", "chaos", "docs/test_site.py", "fuzz", "gateway/test_process.py",
        "gateway/test_slow_readers.py", "generator/test_adapters.py", "generator/test_bounds.py",
        "generator/test_engine.py", "generator/test_fairness.py", "generator/test_generation.py",
        "generator/test_isolation.py", "generator/test_judging.py", "generator/test_prompts.py",
        "generator/test_selecting.py", "generator/test_shares.py", "helm/test_kuberay.py", "helm/test_manifests.py",
        "helm/test_odd_values.py",
        "local/test_hub_backbones.py", "packaging/test_wheel.py", "papa/test_calibration.py", "papa/test_rebuilding.py",
        "trainer/test_isolation.py", "trainer/test_latent_updater.py",
        "trainer/test_papa_updater.py",
    ),
}  # fmt: skip
"""Marker → the beginnings of the paths, below this folder, of modules that are so as a whole."""

PROGRAMS = {
    "redis": r"(^|/)redis-server( |$)|/falkordb",
    "ray": r"(^|/)(raylet|gcs_server)( |$)|papa_serving\.local\.ray_host|run_placeholder",
    "browser": r"/playwright/driver/|(^|/)chrom(e|ium)\b",
    "prometheus": r"(^|/)(prom(etheus|tool)|prometheus-alertmanager|amtool)( |$)",
}
"""Marker → how a word of a command line begins that starts such a thing, itself or in turn."""


def path(item: pytest.Item) -> str:
    """Of a test's file below this folder."""
    return _below(item.path)


def _below(file: Path) -> str:
    return Path(os.path.relpath(file, TESTS)).as_posix()


def _of_modules(below: str) -> set[str]:
    return {marker for marker, beginnings in MODULES.items() if below.startswith(beginnings)}


def left_out(file: Path, expression: str) -> bool:
    """Whether `-m expression` selects no test of a file or folder, whichever further markers of ours a test has."""
    given = _of_modules(_below(file))
    if not given or not expression or set(re.findall(r"\w+", expression)) - {*MODULES, "and", "or", "not"}:
        return False
    selects, more = Expression.compile(expression), sorted(set(MODULES) - given)
    possible = [given.union(some) for count in range(len(more) + 1) for some in combinations(more, count)]
    return not any(selects.evaluate(lambda name, has=has, **_: name in has) for has in possible)


def needs(item: pytest.Item) -> set[str]:
    """Its markers."""
    found = _of_modules(path(item))
    fixtures = set(getattr(item, "fixturenames", ()))
    found |= {marker for marker, names in FIXTURES.items() if names & fixtures}
    variant = getattr(item, "callspec", None)
    if variant is not None and {"redis", "cluster"} & set(variant.id.split("-")):
        found.add("redis")
    return found


def programs(command: list[str]) -> set[str]:
    """The markers of what a command line starts; one that only asks for a version starts nothing."""
    if "--version" in command:
        return set()
    return {marker for marker, known in PROGRAMS.items() if any(re.search(known, word) for word in command)}


class Started:
    """Hears of every child process that this one starts."""

    def __init__(self) -> None:
        self.markers: set[str] = set()
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[object, ...]) -> None:
        if event == "subprocess.Popen":
            _, command, *_ = arguments
            words = [command] if isinstance(command, str | bytes) else list(command)  # type: ignore[call-overload]
            self.markers |= programs([word.decode() if isinstance(word, bytes) else str(word) for word in words])
