"""`python -m benchmarks.serving`: the whole service against its engine, and how soon a label shows."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys

from benchmarks.engine import record
from benchmarks.serving.freshness import LABELS, seconds_to_served
from benchmarks.serving.service import service


def main(arguments: list[str] | None = None) -> int:
    """Measures the named parts and keeps the others' last figures."""
    parser = argparse.ArgumentParser(prog="papa bench serving", description=__doc__)
    record.arguments(parser, PARTS)
    parser.add_argument("--turns", type=int, default=6)
    parser.add_argument("--active", type=int, nargs="+", default=[1, 8, 32], help="numbers of active users")
    # Whoever ends the measurement must not leave the service behind.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    return record.measure(parser, arguments, PARTS)


def _threads(options: argparse.Namespace) -> dict[str, str]:
    return {"PAPA_GENERATOR__THREADS": str(options.threads), "PAPA_TRAINER__THREADS": str(options.threads)}


def _whole(options: argparse.Namespace) -> record.Figures:
    from benchmarks.serving.whole import against_bare
    from papa.config import DEFAULT_LORA
    from papa.denoiser import load_denoiser

    denoiser = load_denoiser("fashion_mnist", DEFAULT_LORA)
    with service(_threads(options)) as address:
        paired = against_bare(address, denoiser, options.turns)
    return {"ratios": record.ratios(paired, "bare engine"), "seconds": dict(paired.seconds)}


def _freshness(options: argparse.Namespace) -> record.Figures:
    seconds = dict(record.found(options.out).get("freshness", {}).get("seconds", {}))
    with service(_threads(options)) as address:
        for users in options.active:
            seconds[str(users)] = asyncio.run(seconds_to_served(address, users))
            print(users, [round(each, 2) for each in seconds[str(users)]], flush=True)
    figures = {
        f"p{round(100 * share)}, {users} active, s": record.percentile(found, share)
        for users, found in seconds.items()
        for share in (0.5, 0.95)
    }
    return {"labels": LABELS, "figures": figures, "seconds": seconds}


PARTS: dict[str, record.Part] = {"whole": _whole, "freshness": _freshness}


if __name__ == "__main__":
    sys.exit(main())
