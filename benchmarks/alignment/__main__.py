"""`papa bench alignment`: run experiments, then draw their tables and plots."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks.alignment.archive import ARCHIVE, RAW, RESULTS, completed, pack
from benchmarks.alignment.grid import EXPERIMENTS, OF_THE_PAGE, ordered
from benchmarks.alignment.runner import pending, run_all
from benchmarks.alignment.runs import Run
from benchmarks.alignment.world import DATA, images_of


def main(arguments: list[str] | None = None) -> int:
    """Exit status 1 when a run failed; the others' results are kept. 2 where nothing can be run."""
    options = _parser().parse_args(arguments)
    console = Console()
    raw, results = (options.out / "raw", options.out / "alignment") if options.out else (RAW, RESULTS)
    chosen = [run for run in ordered(options.experiments or OF_THE_PAGE) if _wanted(run, options)]
    if not chosen:
        print("papa bench alignment: no run of these experiments is so; --help lists the choices", file=sys.stderr)
        return 2
    runs = chosen if options.again else pending(chosen, completed(raw))
    failed = 0
    if not runs:
        console.print(f"{len(chosen)} runs, all there in {raw}; --again makes them anew", soft_wrap=True)
    elif options.report_only:
        console.print(f"{len(chosen)} runs, {len(runs)} not made yet; records: {raw}", soft_wrap=True)
    else:
        try:
            for dataset in dict.fromkeys(run.dataset for run in runs):
                images_of(dataset, options.data)
        except FileNotFoundError as error:
            print(f"papa bench alignment: {error}", file=sys.stderr)
            return 2
        console.print(f"{len(chosen)} runs, {len(runs)} to do; records: {raw}", soft_wrap=True)
        failed = _run(runs, raw, options, console)
    if not options.no_report:
        from benchmarks.alignment.report import write_report

        for path in write_report(raw, results):
            console.print(f"written {path}", soft_wrap=True)
    return 1 if failed else 0


def _run(runs: list[Run], raw: Path, options: argparse.Namespace, console: Console) -> int:
    """Executes the runs and returns how many of them failed."""
    failed = 0
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        task = progress.add_task("runs", total=len(runs))
        for run, outcome in run_all(runs, raw, options.data, options.workers, options.bfloat16):
            failed += isinstance(outcome, BaseException)
            said = repr(outcome) if isinstance(outcome, BaseException) else f"{outcome:.0f} s"
            progress.console.print(f"{run.name}: {said}", soft_wrap=True)
            progress.advance(task)
    if raw == RAW:
        pack(RAW, ARCHIVE)
        console.print(f"written {ARCHIVE}", soft_wrap=True)
    return failed


def _wanted(run: Run, options: argparse.Namespace) -> bool:
    """Whether a run is of the part that was asked for."""
    asked = ((options.dataset, run.dataset), (options.system, run.system),
             (options.taste, run.taste), (options.seed, run.seed))  # fmt: skip
    return all(wanted is None or wanted == its for wanted, its in asked)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="papa bench alignment", description=__doc__)
    parser.add_argument("experiments", nargs="*", type=_experiment, metavar="EXPERIMENT",
                        help=f"any of {', '.join(EXPERIMENTS)}; all but the last two without one")  # fmt: skip
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the data sets (papa data fetch)")
    parser.add_argument("--out", type=Path, help="folder for records, page and figures, instead of the repository's")
    parser.add_argument("--workers", type=int, default=1, help="processes, each of one thread")
    parser.add_argument("--dataset", help="only runs on this data set")
    parser.add_argument("--system", help="only runs of this system")
    parser.add_argument("--taste", type=_classes, help="only runs of this taste, such as 1,2,6")
    parser.add_argument("--seed", type=int, help="only runs of this seed")
    parser.add_argument("--again", action="store_true", help="also runs whose records are there")
    parser.add_argument("--bfloat16", action=argparse.BooleanOptionalAction, default=True, help="precision of products")
    parser.add_argument("--report-only", action="store_true", help="draw from what is there")
    parser.add_argument("--no-report", action="store_true", help="only run")
    return parser


def _classes(text: str) -> tuple[int, ...]:
    return tuple(sorted(int(each) for each in text.split(",")))


def _experiment(name: str) -> str:
    """argparse's `choices` would refuse an empty list of them."""
    if name not in EXPERIMENTS:
        raise argparse.ArgumentTypeError(f"no experiment {name!r}; there are {', '.join(EXPERIMENTS)}")
    return name


if __name__ == "__main__":
    sys.exit(main())
