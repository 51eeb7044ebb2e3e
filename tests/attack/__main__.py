"""`make attack`: every attack of docs/security.md against real processes on this machine, and a table.

Exits with 1 when a defence did not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.attack import floods, machine, messages, pictures, starts, strangers, web
from tests.attack.result import Attack
from tests.attack.run import Row, attack, table
from tests.attack.target import attacked

GATEWAY = (
    *floods.ATTACKS, *pictures.ATTACKS, *messages.ATTACKS, *strangers.ATTACKS, *starts.ATTACKS, *web.ATTACKS,
    *floods.LAST,
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(prog="make attack", description=__doc__)
    parser.add_argument("words", nargs="*", help="only attacks whose name holds one of these words")
    parser.add_argument("--record", action="store_true", help="write what is printed to docs/results/attack.md")
    chosen = parser.parse_args()
    rows = asyncio.run(_all(chosen.words))
    text = table(rows)
    print(text)
    if chosen.record:
        from tests.record import record

        record("attack", "Attacks on a running service", "make attack ARGS=--record", text)
    return int(not all(row.found.held for row in rows))


async def _all(words: list[str]) -> list[Row]:
    def wanted(attacks: Sequence[Attack]) -> list[Attack]:
        return [each for each in attacks if not words or any(word in each.name for word in words)]

    rows: list[Row] = []
    if chosen := wanted(GATEWAY):
        with tempfile.TemporaryDirectory(prefix="papa-attack-") as folder:
            async with attacked(Path(folder)) as (target, process):
                rows += await attack(target, process, chosen, 1.0, _told)
    if chosen := wanted(machine.ATTACKS):
        with machine.whole_service() as (target, process):
            rows += await attack(target, process, chosen, 1.0, _told)
    return rows


def _told(row: Row) -> None:
    print(f"  {row.attack}: {row.found.what}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
