"""`make fuzz`: a million messages, a table, and an exit code of 1 for anything that must not be."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import sys
import time
from concurrent.futures import ProcessPoolExecutor

from tests.fuzz.driver import Tally
from tests.fuzz.run import Outcome, told, work
from tests.record import record


def main() -> int:
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--processes", type=int, default=max(1, (os.cpu_count() or 2) // 2))
    parser.add_argument("--seed", default=str(random.randrange(10**9)))
    parser.add_argument("--record", action="store_true", help="write what is printed to docs/results/fuzz.md")
    parser.add_argument("--replay", metavar="WORKER:CALL", help="one call of that seed again")
    chosen = parser.parse_args()
    if chosen.replay:
        worker, _, call = chosen.replay.partition(":")
        outcome = work(f"{chosen.seed}:{worker}", 0, int(call))
        print(f"{dict(outcome.tally.answers)}\n" + "\n".join(outcome.tally.findings + outcome.faults))
        return bool(outcome.tally.findings or outcome.faults)
    print(f"seed {chosen.seed}: {chosen.messages:,} messages, {chosen.processes} gateways", flush=True)
    begun, share = time.monotonic(), -(-chosen.messages // chosen.processes)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(chosen.processes, mp_context=context) as pool:
        futures = [pool.submit(told, f"{chosen.seed}:{worker}", share, worker) for worker in range(chosen.processes)]
        outcomes = [future.result() for future in futures]
    text, wrong = report(outcomes, time.monotonic() - begun, chosen.seed)
    print(text)
    if chosen.record:
        record("fuzz", "Random and mutated messages", "make fuzz ARGS=--record", text)
    return wrong


def report(outcomes: list[Outcome], seconds: float, seed: str) -> tuple[str, bool]:
    """The report, and whether there were findings."""
    total = Tally()
    for outcome in outcomes:
        total.add(outcome.tally)
    lines = [f"seed {seed}: {total.sent:,} messages in {seconds:.0f} s, {total.sent / seconds:,.0f} a second", ""]
    for title, counts in (("messages of", total.methods), ("calls that ended with", total.answers)):
        lines += [title, *(f"  {number:>10,}  {name}" for name, number in counts.most_common())]
    for worker, outcome in enumerate(outcomes):
        warm, highest, last = (size / 2**20 for size in outcome.memory)
        lines.append(f"gateway {worker}: {warm:.0f} MiB warm, {highest:.0f} at most, {last:.0f} at the end")
    wrong = [f"gateway {w}: {each}" for w, o in enumerate(outcomes) for each in (*o.tally.findings, *o.faults)]
    lines += wrong or ["nothing that must not be"]
    if wrong:
        lines.append(f"one call again: make fuzz ARGS='--seed {seed} --replay GATEWAY:CALL'")
    return "\n".join(lines), bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
