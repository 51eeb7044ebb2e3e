"""`python -m benchmarks.engine`: ratios of the engine's parts, as docs/results/engine.json and engine.md."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks.alignment.runner import machine
from benchmarks.engine.page import page
from benchmarks.engine.paired import Paired
from papa.config import DEFAULT_LORA
from papa.denoiser import fast_type, load_denoiser

RESULTS = Path(__file__).parents[2] / "docs" / "results"


def main(arguments: list[str] | None = None) -> int:
    """Measures the named parts and keeps the others' last figures."""
    options = _parser().parse_args(arguments)
    console = Console()
    torch.set_num_threads(options.threads)
    path = options.out / "engine.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    for name in options.parts or list(PARTS):
        console.print(f"{name} …")
        figures = PARTS[name](options)
        figures |= {
            "date": datetime.now(UTC).date().isoformat(),
            "threads": options.threads,
            "load": os.getloadavg()[0],
        }
        found[name] = figures | {"machine": _device(options.device), "command": f"papa bench engine {name}"}
        console.print_json(json.dumps({key: value for key, value in figures.items() if key != "seconds"}))
        options.out.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found, indent=1) + "\n")
    (options.out / "engine.md").write_text(page(found))
    console.print(f"written {path} and engine.md", soft_wrap=True)
    return 0


def _mixed(options: argparse.Namespace) -> dict[str, Any]:
    from benchmarks.engine.passes import mixed

    denoiser = load_denoiser("fashion_mnist", DEFAULT_LORA, options.device, autocast=_autocast(options))
    paired = mixed(denoiser, options.batch, options.turns)
    return {"batch": options.batch, "ratios": _ratios(paired, "base"), "seconds": dict(paired.seconds)}


def _peft(options: argparse.Namespace) -> dict[str, Any]:
    from benchmarks.engine.passes import against_peft

    paired = against_peft("fashion_mnist", options.users, options.turns, _autocast(options))
    ratios = {name: [paired.ratio("ours", name), *paired.spread("ours", name)] for name in paired.seconds}
    return {"users": options.users, "ratios": ratios, "seconds": dict(paired.seconds)}


def _updates(options: argparse.Namespace) -> dict[str, Any]:
    from benchmarks.engine.updates import together

    denoiser = load_denoiser("fashion_mnist", DEFAULT_LORA, options.device, autocast=_autocast(options))
    paired = together(denoiser, 16, (2, 4, 16), max(2, options.turns // 4))
    return {"users": 16, "ratios": _ratios(paired, "1 at once"), "seconds": dict(paired.seconds)}


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "mixed": _mixed,
    "peft": _peft,
    "updates": _updates,
}


def _ratios(paired: Paired, to: str) -> dict[str, list[float]]:
    """Median and quartiles of each alternative's speed ÷ that of `to`."""
    return {name: [paired.ratio(name, to), *paired.spread(name, to)] for name in paired.seconds}


def _autocast(options: argparse.Namespace) -> torch.dtype | None:
    return fast_type(options.device) if options.bfloat16 else None


def _device(device: str) -> str:
    if device.startswith("cuda"):
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {platform.system()}"
    return machine().replace("1 thread, ", "")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="papa bench engine", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=list(PARTS), metavar="PART", help=f"any of {', '.join(PARTS)}")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of engine.json and engine.md")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=64, help="rows of a batch")
    parser.add_argument("--users", type=int, default=16, help="users of the comparison with peft")
    parser.add_argument("--turns", type=int, default=8, help="rounds in which the alternatives take turns")
    parser.add_argument(
        "--bfloat16", action=argparse.BooleanOptionalAction, default=False, help="precision of products"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
