"""`python -m benchmarks.alignment`: run experiments, then draw their tables and plots."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks.alignment.archive import ARCHIVE, RAW, RESULTS, completed, pack
from benchmarks.alignment.grid import EXPERIMENTS, SHIPPED, ordered
from benchmarks.alignment.runner import pending, run_all
from benchmarks.alignment.world import DATA


def main(arguments: list[str] | None = None) -> int:
    """Exit status 1 when a run failed; the others' results are kept."""
    options = _parser().parse_args(arguments)
    console = Console()
    every = ordered(options.experiments or SHIPPED)
    if options.dataset:
        every = [run for run in every if run.dataset == options.dataset]
    runs = pending(every, completed(options.raw))
    console.print(f"{len(every)} runs, {len(runs)} to do; raw results: {options.raw}", soft_wrap=True)
    failed = 0
    if runs and not options.report_only:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
            task = progress.add_task("runs", total=len(runs))
            for run, outcome in run_all(runs, options.raw, options.data, options.workers, options.bfloat16):
                failed += isinstance(outcome, BaseException)
                said = repr(outcome) if isinstance(outcome, BaseException) else f"{outcome:.0f} s"
                progress.console.print(f"{run.name}: {said}", soft_wrap=True)
                progress.advance(task)
        if options.raw == RAW:
            pack(RAW, ARCHIVE)
            console.print(f"written {ARCHIVE}", soft_wrap=True)
    if not options.no_report:
        from benchmarks.alignment.report import write_report

        for path in write_report(options.raw, RESULTS):
            console.print(f"written {path}", soft_wrap=True)
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="papa bench alignment", description=__doc__)
    parser.add_argument("experiments", nargs="*", type=_experiment, metavar="EXPERIMENT",
                        help=f"any of {', '.join(EXPERIMENTS)}; all but the last two without one")  # fmt: skip
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the .npz files")
    parser.add_argument("--raw", type=Path, default=RAW, help="folder of the runs' records")
    parser.add_argument("--workers", type=int, default=1, help="processes, each of one thread")
    parser.add_argument("--dataset", help="only runs on this data set")
    parser.add_argument("--bfloat16", action=argparse.BooleanOptionalAction, default=True, help="precision of products")
    parser.add_argument("--report-only", action="store_true", help="draw from what is there")
    parser.add_argument("--no-report", action="store_true", help="only run")
    return parser


def _experiment(name: str) -> str:
    """argparse's `choices` would refuse an empty list of them."""
    if name not in EXPERIMENTS:
        raise argparse.ArgumentTypeError(f"no experiment {name!r}; there are {', '.join(EXPERIMENTS)}")
    return name


if __name__ == "__main__":
    sys.exit(main())
