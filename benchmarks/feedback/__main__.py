"""`python -m benchmarks.feedback`: ingestion one by one, streamed and batched ÷ a bare grpc.aio echo."""

from __future__ import annotations

import argparse
import sys

from benchmarks.engine import record
from benchmarks.feedback.ingestion import PER_TURN, measure


def main(arguments: list[str] | None = None) -> int:
    """Measures ingestion and writes the page anew."""
    parser = argparse.ArgumentParser(prog="papa bench feedback", description=__doc__)
    record.arguments(parser, PARTS)
    parser.add_argument("--turns", type=int, default=7)
    return record.measure(parser, arguments, PARTS)


def _ingestion(options: argparse.Namespace) -> record.Figures:
    found, both, gateway = measure(options.turns)
    ratios = {way: paired.figure(way, "echo") for way, paired in found.items()}
    rates = {
        f"{way} events per second, {side}": PER_TURN[way] / record.percentile(seconds, 0.5)
        for way, paired in found.items()
        for side, seconds in (("gateway", paired.seconds[way]), ("echo", paired.seconds["echo"]))
    }
    cores = {"batched events per second and core": both, "the same, without Redis' share": gateway}
    return {
        "ratios": ratios,
        "figures": cores | rates,
        "seconds": {way: dict(paired.seconds) for way, paired in found.items()},
    }


PARTS: dict[str, record.Part] = {"ingestion": _ingestion}


if __name__ == "__main__":
    sys.exit(main())
