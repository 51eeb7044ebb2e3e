"""Recommends the test pictures of a data set to simulated users, beside rivals on the same embeddings.

python -m benchmarks.catalogue --dataset fashion_mnist --taste 0,3,8 --seed 1 --out cells.jsonl
python -m benchmarks.catalogue --report cells.jsonl
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from benchmarks.alignment.world import DATA
from benchmarks.catalogue.report import tables
from benchmarks.catalogue.simulate import PAGE, Cell, simulate
from benchmarks.catalogue.stock import stock

PIXELS = ("fashion_mnist", "mnist")
"""Data sets whose shipped backbones have a pool."""


def main(arguments: list[str] | None = None) -> int:
    """Appends the records of one cell, a JSON line each, or prints the tables of a file of them."""
    options = _parser().parse_args(arguments)
    if options.report is not None:
        try:
            print(tables(json.loads(line) for line in options.report.read_text().splitlines()))
        except ValueError as error:
            print(f"python -m benchmarks.catalogue: {error}", file=sys.stderr)
            return 2
        return 0
    if options.taste is None:
        print("python -m benchmarks.catalogue: name a --taste, or a file to --report", file=sys.stderr)
        return 2
    cell = Cell(options.dataset, options.taste, options.labels, options.seed, options.flipped)
    try:
        pictures = stock(
            cell.dataset, options.data, options.data / "embeddings" if options.kept is None else options.kept
        )
    except FileNotFoundError as error:
        print(f"python -m benchmarks.catalogue: {error}", file=sys.stderr)
        return 2
    for record in simulate(cell, pictures):
        line = json.dumps(record)
        print(line, flush=True)
        if options.out is not None:
            with options.out.open("a") as out:
                out.write(line + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.catalogue", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", choices=PIXELS, default=PIXELS[0])
    parser.add_argument("--taste", type=_numbers, help="the liked classes, for instance 0,3,8")
    parser.add_argument("--labels", type=_rounds, default=(10, 20, 50, 100), help="after how many labels to measure")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--flipped", type=float, default=0.0, help="share of labels that say the opposite")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the data sets")
    parser.add_argument("--kept", type=Path, help="folder of the embeddings; in that of the data sets when absent")
    parser.add_argument("--out", type=Path, help="file that the records are appended to")
    parser.add_argument("--report", type=Path, help="print the tables of a file of records instead")
    return parser


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _rounds(text: str) -> tuple[int, ...]:
    """Raises ArgumentTypeError for numbers of labels that are not those of whole pages."""
    numbers = _numbers(text)
    if any(number <= 0 or number % PAGE for number in numbers):
        raise argparse.ArgumentTypeError(f"labels come {PAGE} at a time: {text}")
    return numbers


if __name__ == "__main__":
    sys.exit(main())
