"""`papa feedback import` of a long history, twice, by a real gateway and a real redis-server.

`python -m benchmarks.feedback.history --lines 300000` prints, for each of the two, the seconds, the processor seconds
and the peak memory of the command, and what became of the lines.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from papa_serving.local.redis_process import RedisProcess
from papa_serving.settings import FeedbackSettings, GatewaySettings, MetricsSettings, RedisSettings, Settings

from benchmarks.feedback.ingestion import gateway_process, store_items
from benchmarks.feedback.load import ITEMS, USERS, item_id

TYPES = ("view", "click", "purchase", "skip")


def write(file: Path, lines: int) -> None:
    """A history in the order of time, of USERS users."""
    chance = random.Random(1)
    with file.open("w") as out:
        for number in range(lines):
            user = chance.randrange(USERS)
            said = {
                "user": f"u{user}",
                "item_id": item_id(user, chance.randrange(ITEMS)),
                "type": TYPES[number % len(TYPES)],
                "occurred_at": 1_700_000_000 + number,
            }
            out.write(json.dumps(said) + "\n")


def run(file: Path, address: str) -> dict[str, object]:
    """One import, in a process of its own."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    command = [sys.executable, "-m", "papa_serving.cli.main", "feedback", "import", str(file), "--address", address]
    ended = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    report = json.loads(ended.stdout)
    return {
        "seconds": round(time.monotonic() - began, 1),
        "processor_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
        "peak_mib": after.ru_maxrss // 1024,
        **{name: report[name] for name in ("lines", "accepted", "duplicates", "refused")},
    }


def main() -> None:
    """Prints one JSON line per import."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=300_000)
    lines = parser.parse_args().lines
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        redis = stack.enter_context(RedisProcess(folder / "redis"))
        settings = Settings(
            data_dir=folder,
            redis=RedisSettings(url=redis.url),
            gateway=GatewaySettings(port=0),
            metrics=MetricsSettings(port=0),
            feedback=FeedbackSettings(backlog_limit=10_000_000),
        )
        asyncio.run(store_items(settings))
        _, address = stack.enter_context(gateway_process(settings))
        write(folder / "history.jsonl", lines)
        for _ in range(2):
            print(json.dumps(run(folder / "history.jsonl", address)), flush=True)


if __name__ == "__main__":
    main()
