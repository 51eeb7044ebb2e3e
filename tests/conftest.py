"""Fixtures and hooks of all tests: default settings, markers by requirement, and a table of skipped tests."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from xdist.remote import Producer

from tests import absent, lanes, markers

for variable in [name for name in os.environ if name.startswith("PAPA_")]:
    del os.environ[variable]

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # the many processes that tests start would compile everything again

if int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")) > 1:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # several processes share the cores

STARTED = markers.Started()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Imports nothing of what `-m` leaves out as a whole."""
    return markers.left_out(collection_path, config.option.markexpr) or None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks each test with what it needs, and puts what takes long first."""
    for item in items:
        for marker in markers.needs(item):
            item.add_marker(marker)
    items.sort(key=lambda item: lanes.position(markers.path(item)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> lanes.Lanes:
    """How `-n` distributes them, whatever `--dist` says."""
    config.option.loadscopereorder = False
    return lanes.Lanes(config, log)


@pytest.fixture(autouse=True)
def _its_markers_are_true(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test that starts a Redis, a Ray, a browser or a Prometheus and does not say so."""
    yield
    unsaid = STARTED.markers - {marker.name for marker in request.node.iter_markers()}
    STARTED.markers.clear()
    if unsaid:
        pytest.fail(f"starts what it has no marker for: {', '.join(sorted(unsaid))} (tests/markers.py)")


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
