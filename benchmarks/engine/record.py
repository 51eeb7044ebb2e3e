"""One JSON file a part, so that a part can be measured again alone and the page rebuilt from what is there."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks.alignment.runner import machine
from benchmarks.engine.page import page
from benchmarks.engine.paired import Paired
from benchmarks.engine.plots import draw_all

RESULTS = Path(__file__).parents[2] / "docs" / "results"

Figures = dict[str, Any]
Part = Callable[[argparse.Namespace], Figures]


def arguments(parser: argparse.ArgumentParser, parts: Mapping[str, Part]) -> None:
    """Adds the arguments that all benchmarks of this page take."""

    def part(name: str) -> str:
        # Not `choices`, which argparse of Python 3.11 also holds against naming none.
        if name not in parts:
            raise argparse.ArgumentTypeError(f"any of {', '.join(parts)}, not {name!r}")
        return name

    parser.add_argument("parts", nargs="*", type=part, metavar="PART", help=f"any of {', '.join(parts)}")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of engine.md and of engine/PART.json")
    parser.add_argument("--threads", type=int, default=2, help="torch threads")
    parser.add_argument("--report-only", action="store_true", help="write the page from the figures that are there")


def measure(parser: argparse.ArgumentParser, given: list[str] | None, parts: Mapping[str, Part]) -> int:
    """Measures the named parts, all when none is named, keeps each at once, and writes the page anew.

    `given` are the command's arguments, of which each part's record has those that it was measured with.
    """
    given = sys.argv[1:] if given is None else given
    options, console = parser.parse_args(given), Console()
    torch.set_num_threads(options.threads)
    switches = [each for each in given if each not in parts]
    for name in [] if options.report_only else options.parts or list(parts):
        console.print(f"{name} …")
        figures = parts[name](options)
        command = f"{parser.prog} {shlex.join([name, *switches])}"
        keep(options.out, name, figures, command, options.threads, getattr(options, "device", "cpu"))
        shown = {key: figures[key] for key in ("ratios", "figures") if key in figures}
        console.print_json(json.dumps(shown))
    report(options.out)
    console.print(f"written {options.out / 'engine.md'}", soft_wrap=True)
    return 0


def keep(out: Path, name: str, figures: Figures, command: str, threads: int, device: str) -> None:
    """Adds when, where and how to the figures of a part."""
    about = {
        "command": command,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": _device(device),
        "threads": threads,
        "load": round(os.getloadavg()[0], 1),
    }
    (out / "engine").mkdir(parents=True, exist_ok=True)
    (out / "engine" / f"{name}.json").write_text(json.dumps(about | figures, indent=1) + "\n")


def found(out: Path) -> dict[str, Figures]:
    """The figures of every part that has been measured."""
    return {path.stem: json.loads(path.read_text()) for path in sorted((out / "engine").glob("*.json"))}


def report(out: Path) -> None:
    """engine.md and its plots."""
    figures = found(out)
    plots = draw_all(figures, out / "engine")
    out.mkdir(parents=True, exist_ok=True)
    (out / "engine.md").write_text(page(figures, plots))


def ratios(paired: Paired, to: str) -> dict[str, list[float]]:
    """Median and quartiles of each alternative's speed ÷ that of `to`."""
    return {name: paired.figure(name, to) for name in paired.seconds}


def percentile(values: list[float], share: float) -> float:
    """The smallest value that at least `share` of them do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))]


def _device(device: str) -> str:
    if device.startswith("cuda"):
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {platform.system()}"
    return machine().replace("1 thread, ", "")
