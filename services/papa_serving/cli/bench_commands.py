"""`papa bench`: the measurements behind docs/results. They need a checkout: the package does not contain them."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

import typer

from papa_serving.cli.output import AsJson, check_writable, print_json
from papa_serving.local.failure import Failure

CHECKOUT = Path(__file__).parents[3]
RESULTS = Path("docs/results")
_STDERR = 2
_PATHS = ("--out", "--page", "--data", "--results")

bench = typer.Typer(name="bench", no_args_is_help=True, help="Measure, and write docs/results; needs a checkout.")
PASSED_ON = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}


@bench.command(context_settings=PASSED_ON)
def alignment(context: typer.Context, json: AsJson = False) -> None:
    """How well, how soon and how cheaply each system learns a taste; --help lists the experiments."""
    _run("alignment", context.args, json)


@bench.command(context_settings=PASSED_ON)
def engine(context: typer.Context, json: AsJson = False) -> None:
    """Many users in one batch, and many updates in one backward pass, against doing it one by one."""
    _run("engine", context.args, json)


@bench.command(context_settings=PASSED_ON)
def serving(context: typer.Context, json: AsJson = False) -> None:
    """The whole service against its engine, and how soon a like shows in the pictures."""
    _run("serving", context.args, json)


@bench.command(context_settings=PASSED_ON)
def feedback(context: typer.Context, json: AsJson = False) -> None:
    """How fast feedback is taken in, one by one, streamed and batched, against a bare echo."""
    _run("feedback", context.args, json)


@bench.command(context_settings=PASSED_ON)
def capacity(context: typer.Context, json: AsJson = False) -> None:
    """Estimate the cost of 10 thousand, 1 million and 100 million users from the measured figures."""
    _run("capacity", context.args, json)


def _run(name: str, arguments: list[str], json: bool) -> None:
    if not (CHECKOUT / "benchmarks" / name).is_dir():
        raise Failure(f"there is no benchmarks/{name} beside this package", "run it from a clone, set up by make")
    arguments = _from_here(arguments)
    if "--help" not in arguments:
        _check_target(arguments)
    command = [sys.executable, "-m", f"benchmarks.{name}", *arguments]
    before, started = _written(), time.monotonic()
    # Standard output is reserved for the document, so the benchmark's output goes to standard error.
    code = subprocess.run(command, cwd=CHECKOUT, check=False, stdout=_STDERR if json else None).returncode
    if json:
        changed = sorted(str(path) for path, moment in _written().items() if before.get(path) != moment)
        seconds = round(time.monotonic() - started, 3)
        print_json({
            "benchmark": name, "arguments": arguments, "exit_code": code, "seconds": seconds, "written": changed,
        })  # fmt: skip
    raise typer.Exit(code)


def _from_here(arguments: list[str]) -> list[str]:
    """Paths are the caller's, but the benchmark runs in the checkout."""
    return [_placed(word, before) for before, word in zip(["", *arguments], arguments, strict=False)]


def _placed(word: str, before: str) -> str:
    name, equals, value = word.partition("=")
    if before in _PATHS:
        return str(Path(word).absolute())
    return f"{name}={Path(value).absolute()}" if equals and name in _PATHS else word


def _check_target(arguments: list[str]) -> None:
    """Raises Failure for a folder of figures that cannot be written, before the hours that they take."""
    named = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    named.add_argument("--out", type=Path)
    named.add_argument("--page", type=Path)
    given, _ = named.parse_known_args(arguments)
    if given.out is None:
        check_writable(CHECKOUT / RESULTS, "the figures are written there: give this user the checkout, or name --out")
    else:
        check_writable(given.out)
    if given.page is not None:
        check_writable(given.page.absolute().parent, "name another file with --page")


def _written() -> dict[Path, int]:
    """Every file of the results in the checkout, with its modification time."""
    files = (path for path in (CHECKOUT / RESULTS).rglob("*") if path.is_file())
    return {path.relative_to(CHECKOUT): path.stat().st_mtime_ns for path in files}
