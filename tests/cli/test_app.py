"""The command tree as a whole: help, start-up, and how errors read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from papa_serving.cli import app as application
from papa_serving.contracts.errors import QueueFull
from papa_serving.local.failure import Failure

from tests.cli.conftest import Papa

COMMANDS = (
    "up", "demo", "playground", "gateway", "generate", "feedback", "users", "adapters", "deadletters", "config",
    "backbone", "bench", "doctor", "version",
)  # fmt: skip
WITHOUT_JSON = {"papa gateway"}
"""Its ready line is JSON anyway."""
HEAVY = ("torch", "ray", "diffusers", "redis", "matplotlib", "prometheus_client", "safetensors", "papa")


def test_help_lists_every_command_and_loads_nothing_heavy() -> None:
    program = f"""
import sys
from papa_serving.cli.app import run
code = run(["--help"])
loaded = set({HEAVY!r}) & set(sys.modules)
sys.exit(f"loaded {{loaded}}" if loaded else code)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for command in COMMANDS:
        assert f" {command} " in done.stdout


@pytest.mark.parametrize("command", [[], ["users"], ["adapters"], ["config"], ["backbone"]])
def test_a_group_alone_shows_its_help(papa: Papa, command: list[str]) -> None:
    ended = papa(*command)
    assert ended.code == 0
    assert "Usage: papa" in ended.out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["nonsense"], "No such command 'nonsense' (see papa --help)"),
        (["up", "--qqq"], "No such option: --qqq (see papa up --help)"),
        (["users", "get"], "Missing argument 'USER' (see papa users get --help)"),
        (["up", "--port", "many"], "Invalid value for '--port'"),
    ],
)
def test_a_wrong_command_line_is_one_line(papa: Papa, arguments: list[str], expected: str) -> None:
    ended = papa(*arguments)
    assert ended.code == 2
    assert ended.err.startswith("papa: ")
    assert expected in ended.err
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (Failure("the door is closed", "open it"), "papa: the door is closed (open it)\n"),
        (QueueFull("too much", retry_after=2.0), "papa: too much (QUEUE_FULL, try again in 2 s)\n"),
        (typer.Abort(), "papa: given up\n"),
        (ZeroDivisionError("1/0"), "papa: ZeroDivisionError: 1/0 (run it again with --debug for the traceback)\n"),
    ],
)
def test_every_error_is_one_line_and_a_non_zero_exit(
    papa: Papa, monkeypatch: pytest.MonkeyPatch, error: Exception, expected: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(application, "app", fail)
    ended = papa("version")
    assert (ended.code, ended.err) == (1, expected)
    with pytest.raises(type(error)):
        papa("version", "--debug")


def leaves(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every command that does something, with its name in full."""
    for name, each in getattr(command, "commands", {}).items():
        yield from leaves(each, f"{path} {name}")
    if not hasattr(command, "commands"):
        yield path, command


def test_every_command_speaks_json_too() -> None:
    found = dict(leaves(typer.main.get_command(application.app), "papa"))
    assert len(found) > 25
    silent = {name for name, command in found.items() if "--json" not in {o for p in command.params for o in p.opts}}
    assert silent == WITHOUT_JSON


def test_a_benchmark_says_in_json_what_it_wrote(tmp_path: Path) -> None:
    """In a checkout of its own, whose benchmark writes one result, talks, and fails."""
    program = tmp_path / "benchmarks" / "serving"
    program.mkdir(parents=True)
    (tmp_path / "docs" / "results").mkdir(parents=True)
    (tmp_path / "docs" / "results" / "old.md").touch()
    (program.parent / "__init__.py").touch()
    (program / "__main__.py").write_text(
        "import pathlib, sys; print('measuring', sys.argv[1:]); pathlib.Path('docs/results/new.md').touch(); exit(3)"
    )
    ask = (
        "import pathlib, sys; from papa_serving.cli import bench_commands; from papa_serving.cli.app import run; "
        f"bench_commands.CHECKOUT = pathlib.Path({str(tmp_path)!r}); "
        "sys.exit(run(['bench', 'serving', '--users', '5', '--json']))"
    )
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=False)
    said = json.loads(done.stdout)
    assert said.pop("seconds") > 0
    assert said == {"benchmark": "serving", "arguments": ["--users", "5"], "exit_code": 3,
                    "written": ["docs/results/new.md"]}  # fmt: skip
    assert (done.returncode, done.stderr) == (3, "measuring ['--users', '5']\n")


@pytest.mark.parametrize(("typed", "offered"), [("papa ad", "adapters"), ("papa adapters roll", "rollback")])
def test_a_shell_completes_commands(typed: str, offered: str) -> None:
    program = "from papa_serving.cli.main import main; main()"
    words = {"_PAPA_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **words}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.split()) == (0, [offered]), done.stderr


def test_version_names_what_runs(papa: Papa) -> None:
    assert "torch" in papa("version").out
    assert {"papa", "python", "ray"} <= set(papa("version", "--json").json)
