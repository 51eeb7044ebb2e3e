"""`make gpu`: one run of at most eight minutes on one card, as docs/results/gpu.md and gpu/PART.json.

Needs torch with CUDA, and what REQUIRED names; what is missing of that is taken from the wheels in GPU_WHEELS. Each
part runs in a process of its own, so that none takes another's time or memory along, and is recorded when it ends.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.gpu import page
from benchmarks.gpu.page import SHARES

ROOT = Path(__file__).parents[2]
REQUIRED = {
    "diffusers": "diffusers",
    "peft": "peft",
    "safetensors": "safetensors",
    "numpy": "numpy",
    "prometheus_client": "prometheus-client",
    "pydantic_settings": "pydantic-settings",
    "rich": "rich",
    "PIL": "pillow",
}
"""The modules that are needed beside torch, and the distribution of each."""

STARTING = 15.0
"""Seconds of a part's share for what it cannot end early: importing torch, building its models, its last turn."""


def main(given: Sequence[str] | None = None) -> int:
    """Runs the parts that are named, all when none is, and writes the page. 0 if every part ended well."""
    options = _parser().parse_args(given)
    if options.collect:
        return collect(options.collect)
    if options.part:
        return _one(options)
    failed = [] if options.report_only else run(interpreter(options.out), options)
    page.write(options.out)
    print(f"written {options.out / 'gpu.md'}")
    return bool(failed)


def interpreter(folder: Path) -> str:
    """This Python, or one of a virtual environment in `folder` that has the missing packages as well.

    Raises SystemExit, with what is missing, where there are no wheels of it.
    """
    missing = [distribution for name, distribution in REQUIRED.items() if importlib.util.find_spec(name) is None]
    if not missing:
        return sys.executable
    wheels = os.environ.get("GPU_WHEELS")
    if not wheels:
        raise SystemExit(
            f"missing: {', '.join(missing)}; install them, or name a folder of wheels in GPU_WHEELS "
            "(`python -m benchmarks.gpu --collect FOLDER` fills one where there is a network)"
        )
    environment = (folder / ".gpu-packages").resolve()
    subprocess.check_call([sys.executable, "-m", "venv", "--system-site-packages", str(environment)])
    python = str(environment / "bin" / "python")
    subprocess.check_call([python, "-m", "pip", "install", "--quiet", "--no-index", "--find-links", wheels, *missing])
    return python


def run(python: str, options: argparse.Namespace) -> list[str]:
    """Runs each part and tells of it; the names of those that failed or did not end in time."""
    names = options.parts or list(SHARES)
    scale = options.minutes * 60 / sum(SHARES.values())
    end, failed = time.monotonic() + options.minutes * 60, list[str]()
    for name in names:
        seconds = min(SHARES[name] * scale, end - time.monotonic())
        print(f"{name} …", end=" ", flush=True)
        begun = time.monotonic()
        code = _ended([python, "-m", "benchmarks.gpu", *_given(options), "--part", name], seconds)
        if code != "done":
            failed.append(name)
        print(f"{code}, {time.monotonic() - begun:.0f} s", flush=True)
    return failed


def _ended(command: list[str], seconds: float) -> str:
    """Runs a part and returns its outcome, "done" on success."""
    if seconds <= 0:
        return "no time left"
    # A part's own time is less, so that it ends with what it has.
    own = max(1.0, seconds - STARTING)
    try:
        code = subprocess.run([*command, "--seconds", f"{own:.0f}"], cwd=ROOT, timeout=seconds, check=False).returncode
    except subprocess.TimeoutExpired:
        return "did not end in time"
    return f"failed ({code})" if code else "done"


def _given(options: argparse.Namespace) -> list[str]:
    return ["--device", options.device, "--out", str(options.out.resolve()), *(["--tiny"] if options.tiny else [])]


def _one(options: argparse.Namespace) -> int:
    """Measures one part here and records it, with the machine and the date."""
    import platform

    import torch

    from benchmarks.gpu.parts import PARTS, Run

    figures = PARTS[options.part](Run(options.device, options.seconds, options.tiny))
    on_card = options.device.startswith("cuda")
    about = {
        "command": f"make gpu ARGS='{options.part}'",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": torch.cuda.get_device_name() if on_card else f"CPU ({platform.machine()}, {os.cpu_count()} cores)",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "tiny": options.tiny,
    }
    folder = options.out / "gpu"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{options.part}.json").write_text(json.dumps(about | figures, indent=1) + "\n")
    wrong = [name for name, (_, _, fine) in figures.get("checks", {}).items() if not fine]
    if wrong:
        print(f"computes something else: {', '.join(wrong)}", file=sys.stderr)
    return bool(wrong)


def collect(folder: Path) -> int:
    """Downloads the wheels that REQUIRED wants, in the locked versions, less torch: for Python 3.12 on x86-64 Linux."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = ROOT / "requirements" / "dev.txt"
    closure = _closure()
    wanted = [line.split(";")[0].strip() for line in lock.read_text().splitlines() if _named(line) in closure]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(folder), "--no-deps"]
    target = ["--only-binary", ":all:", "--python-version", "3.12", "--platform", "manylinux_2_28_x86_64"]
    older = ["--platform", "manylinux2014_x86_64", "--platform", "any"]
    return subprocess.call([*command, *target, *older, *wanted])


def _named(line: str) -> str:
    return line.split("==", maxsplit=1)[0].strip().lower().replace("_", "-") if "==" in line else ""


def _closure() -> set[str]:
    """The distributions of REQUIRED and all that they depend on, less torch and what comes with it."""
    from importlib.metadata import PackageNotFoundError, requires

    from packaging.requirements import Requirement

    known, left = set[str](), list(REQUIRED.values())
    while left:
        name = left.pop().lower().replace("_", "-")
        if name in known or name == "torch":
            continue
        known.add(name)
        try:
            needed = [Requirement(each) for each in requires(name) or []]
        except PackageNotFoundError:
            continue
        left += [each.name for each in needed if each.marker is None or each.marker.evaluate({"extra": ""})]
    return known


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="make gpu", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help="what to measure (default: all)")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=8.0, help="the longest that the run takes")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "docs" / "results", help="folder of gpu.md and gpu/PART.json"
    )
    parser.add_argument("--tiny", action="store_true", help="smallest sizes: shows that every part runs, no figures")
    parser.add_argument("--report-only", action="store_true", help="write the page from the figures that are there")
    parser.add_argument("--collect", type=Path, metavar="FOLDER", help="download the wheels for GPU_WHEELS, and end")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=30.0, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
