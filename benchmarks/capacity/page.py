"""docs/capacity.md from the measured bytes and speeds, the assumptions and the simulation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.capacity.assumptions import Behaviour, Kept, Prices
from benchmarks.capacity.cost import Cost, Speed
from benchmarks.sections import sections

CONCLUSIONS = Path(__file__).with_name("conclusions.md")


def page(
    costs: Sequence[Cost],
    speed: Speed,
    found: Mapping[str, Any],
    behaviour: Behaviour,
    kept: Kept,
    prices: Prices,
    caches: tuple[int, int],
) -> str:
    """Measured, assumed, derived, in this order."""
    size = found["bytes"]
    return f"""# Capacity

What many users cost, derived by `papa bench capacity` ({found["date"]}) from figures that were measured on two cores
and from assumptions that are named as such. Change `benchmarks/capacity/assumptions.py` and run it again for your own.

## Measured

{found["machine"]}. Speeds are those of [results/engine.md](results/engine.md), for the shipped backbone.

| | |
| --- | --- |
{_rows({name: f"{value:,.0f} bytes" for name, value in size.items()})}
| images per second, two cores, 12 steps | {speed.images:.1f} |
| seconds of one update of ten labels, two cores | {speed.update:.2f} |

## Assumed, not measured

| | |
| --- | --- |
{_rows({f"{name}": value for part in (behaviour, kept, prices) for name, value in asdict(part).items()})}

`gpu_speed` is the one that decides most: no GPU was at hand. The prices are round figures and no quotation.

## Derived

Work is a day's seconds of two cores; pairs of cores and GPUs are those of the peak hour, one or the other.

| users | generations/s | work | pairs of cores | GPUs instead | GPU-seconds a day | Redis, GiB | objects, GiB |
| --- | --- | --- | --- | --- | --- | --- | --- |
{_table(costs, lambda each: _work(each, prices))}

Dollars a month; either cores or GPUs are needed:

| users | Redis | objects | cores | GPUs instead | a user and month, with cores | with GPUs |
| --- | --- | --- | --- | --- | --- | --- |
{_table(costs, _dollars)}

Where the adapters of generations were, in one replica's caches ({caches[0]} slots, {caches[1]:,} adapters in host
memory), when a replica is one pair of cores and any replica may answer anybody (simulated: Poisson visits, Zipf):

| users | device | host memory | store |
| --- | --- | --- | --- |
{_table(costs, lambda each: [f"{100 * share:.1f} %" for share in (each.hits.device, each.hits.host, each.hits.store)])}

## What to make of it

{sections(CONCLUSIONS)["conclusions"]}
"""


def _rows(values: Mapping[str, object]) -> str:
    return "\n".join(f"| {name} | {value} |" for name, value in values.items())


def _table(costs: Sequence[Cost], cells: Any) -> str:
    return "\n".join(f"| {each.users:,} | {' | '.join(cells(each))} |" for each in costs)


def _work(each: Cost, prices: Prices) -> list[str]:
    figures = [each.generations_per_second, each.device_seconds, each.pairs, each.gpus]
    figures += [each.device_seconds / prices.gpu_speed, each.redis_gib, each.object_gib]
    return [_number(figure) for figure in figures]


def _dollars(each: Cost) -> list[str]:
    parts = each.dollars
    base = parts["Redis"] + parts["objects"]
    totals = [(base + parts[kind]) / each.users for kind in ("cores", "GPUs instead")]
    return [*(_number(value) for value in parts.values()), *(f"{value:.5f}" for value in totals)]


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
