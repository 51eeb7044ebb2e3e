"""`python -m benchmarks.capacity`: docs/capacity.md from what was measured and what is assumed."""

from __future__ import annotations

import argparse
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from papa_serving.settings import GeneratorSettings

from benchmarks.alignment.runner import machine
from benchmarks.capacity.assumptions import Behaviour, Kept, Prices
from benchmarks.capacity.cost import Speed, cost
from benchmarks.capacity.footprint import measured
from benchmarks.capacity.page import page
from benchmarks.engine.record import RESULTS, percentile

USERS = (10_000, 1_000_000, 100_000_000)


def main(arguments: list[str] | None = None) -> int:
    """Measures bytes, takes speeds from docs/results/engine, simulates, writes the page."""
    parser = argparse.ArgumentParser(prog="papa bench capacity", description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder with engine/PART.json")
    parser.add_argument("--page", type=Path, default=RESULTS.parent / "capacity.md")
    parser.add_argument("--backbone", default="fashion_mnist")
    parser.add_argument("--report-only", action="store_true", help="take the bytes that were measured last")
    options = parser.parse_args(arguments)
    kept_bytes = options.results / "engine" / "bytes" / "capacity.json"
    if not options.report_only:
        kept_bytes.parent.mkdir(parents=True, exist_ok=True)
        kept_bytes.write_text(json.dumps(_bytes(options.backbone), indent=1) + "\n")
    found = json.loads(kept_bytes.read_text())
    speed = speeds(options.results / "engine")
    behaviour, kept, prices = Behaviour(), Kept(), Prices()
    caches = GeneratorSettings().slots, GeneratorSettings().host_cache
    costs = [cost(users, speed, found["bytes"], behaviour, kept, prices, *caches) for users in USERS]
    options.page.write_text(page(costs, speed, found, behaviour, kept, prices, caches))
    return 0


def speeds(folder: Path) -> Speed:
    """Reads the measured parts `mixed` and `updates`. Raises FileNotFoundError for one that was not measured."""
    mixed, updates = (json.loads((folder / f"{part}.json").read_text()) for part in ("mixed", "updates"))
    trajectory = percentile(mixed["seconds"][f"{min(32, mixed['batch'])} users"], 0.5)
    return Speed(mixed["batch"] / trajectory, percentile(updates["seconds"]["1 at once"], 0.5) / updates["users"])


def _bytes(backbone: str) -> dict[str, Any]:
    about = {"date": datetime.now(UTC).date().isoformat(), "machine": machine().replace("1 thread, ", "")}
    return {**about, "command": "papa bench capacity", "bytes": measured(backbone)}


if __name__ == "__main__":
    sys.exit(main())
