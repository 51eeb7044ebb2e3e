"""`papa bench`: the measurements behind docs/results, which live in a checkout and not in the installed package."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import typer

from services.local.failure import Failure

CHECKOUT = Path(__file__).parents[2]

bench = typer.Typer(name="bench", no_args_is_help=True, help="Measure, and write docs/results; needs a checkout.")
PASSED_ON = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}


@bench.command(context_settings=PASSED_ON)
def alignment(context: typer.Context) -> None:
    """How well, how soon and how cheaply each system learns a taste; --help lists the experiments."""
    _run("alignment", context.args)


@bench.command(context_settings=PASSED_ON)
def engine(context: typer.Context) -> None:
    """Many users in one batch, and many updates in one backward pass, against doing it one by one."""
    _run("engine", context.args)


@bench.command(context_settings=PASSED_ON)
def serving(context: typer.Context) -> None:
    """The whole service against its engine, and how soon an opinion shows."""
    _run("serving", context.args)


@bench.command(context_settings=PASSED_ON)
def feedback(context: typer.Context) -> None:
    """How fast feedback is taken in, one by one, streamed and batched, against a bare echo."""
    _run("feedback", context.args)


@bench.command(context_settings=PASSED_ON)
def capacity(context: typer.Context) -> None:
    """What 10 thousand, 1 million and 100 million users cost, from the measured figures."""
    _run("capacity", context.args)


def _run(name: str, arguments: list[str]) -> None:
    if not (CHECKOUT / "benchmarks" / name).is_dir():
        raise Failure(f"there is no benchmarks/{name} beside this package", "run it from a clone, set up by make")
    command = [sys.executable, "-m", f"benchmarks.{name}", *arguments]
    raise typer.Exit(subprocess.run(command, cwd=CHECKOUT, check=False).returncode)
