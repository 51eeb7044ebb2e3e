"""`python -m benchmarks.engine`: ratios of the engine's parts, as docs/results/engine.md and engine/PART.json."""

from __future__ import annotations

import argparse
import sys

import torch

from benchmarks.engine import record
from papa.config import DEFAULT_LORA
from papa.denoiser import fast_type, load_denoiser


def main(arguments: list[str] | None = None) -> int:
    """Measures the named parts and keeps the others' last figures."""
    return record.measure(_parser(), arguments, PARTS)


def _mixed(options: argparse.Namespace) -> record.Figures:
    from benchmarks.engine.passes import mixed

    denoiser = load_denoiser(options.backbone, DEFAULT_LORA, options.device, autocast=_autocast(options))
    paired = mixed(denoiser, options.batch, options.turns)
    return {"batch": options.batch, "ratios": record.ratios(paired, "base"), "seconds": dict(paired.seconds)}


def _peft(options: argparse.Namespace) -> record.Figures:
    from benchmarks.engine.passes import against_peft

    paired = against_peft(options.backbone, options.users, options.turns, _autocast(options))
    ratios = {name: paired.figure("ours", name) for name in paired.seconds}
    return {"users": options.users, "ratios": ratios, "seconds": dict(paired.seconds)}


def _updates(options: argparse.Namespace) -> record.Figures:
    from benchmarks.engine.updates import together

    # In the precision that the trainer takes by default.
    denoiser = load_denoiser(options.backbone, DEFAULT_LORA, options.device, autocast=fast_type(options.device))
    paired = together(denoiser, 16, (4, 16), max(2, options.turns // 2))
    return {"users": 16, "ratios": record.ratios(paired, "1 at once"), "seconds": dict(paired.seconds)}


def _precisions(options: argparse.Namespace) -> record.Figures:
    from benchmarks.engine.passes import precisions

    paired = precisions(options.backbone, options.device, 32, options.turns)
    return {"batch": 32, "ratios": record.ratios(paired, "float32"), "seconds": dict(paired.seconds)}


def _rotation(options: argparse.Namespace) -> record.Figures:
    from benchmarks.engine.rotation import rotation

    denoiser = load_denoiser(options.backbone, DEFAULT_LORA, options.device, autocast=_autocast(options))
    paired, cold = rotation(denoiser, (5, 100, 2_000, 20_000), options.turns)
    figures = {
        "cold adapter, p50, ms": 1e3 * record.percentile(cold, 0.5),
        "cold adapter, p95, ms": 1e3 * record.percentile(cold, 0.95),
    }
    return {"ratios": record.ratios(paired, "5 users"), "figures": figures, "seconds": dict(paired.seconds)}


def _batching(options: argparse.Namespace) -> record.Figures:
    from benchmarks.engine.batching import compare

    return compare(load_denoiser(options.backbone, DEFAULT_LORA, options.device, autocast=_autocast(options)))


def _compiled(options: argparse.Namespace) -> record.Figures:
    from benchmarks.engine.passes import compiled

    paired = compiled(options.backbone, options.device, 32, options.turns)
    return {"batch": 32, "ratios": record.ratios(paired, "eager"), "seconds": dict(paired.seconds)}


PARTS: dict[str, record.Part] = {
    "mixed": _mixed,
    "peft": _peft,
    "updates": _updates,
    "precisions": _precisions,
    "rotation": _rotation,
    "batching": _batching,
    "compiled": _compiled,
}


def _autocast(options: argparse.Namespace) -> torch.dtype | None:
    return fast_type(options.device) if options.bfloat16 else None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="papa bench engine", description=__doc__)
    record.arguments(parser, PARTS)
    parser.add_argument("--backbone", default="fashion_mnist")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=64, help="rows of a batch")
    parser.add_argument("--users", type=int, default=16, help="users of the comparison with peft")
    parser.add_argument("--turns", type=int, default=8, help="rounds in which the alternatives take turns")
    parser.add_argument(
        "--bfloat16", action=argparse.BooleanOptionalAction, default=False, help="precision of products"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
