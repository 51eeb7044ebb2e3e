"""`papa experiment`: how the arms of experiments differ."""

from __future__ import annotations

from collections.abc import Iterator

import typer

from papa_serving.cli.connection import Address, Tenant, connect
from papa_serving.cli.output import AsJson, console, print_json, print_table
from papa_serving.client import ExperimentReport, Interval

experiment = typer.Typer(name="experiment", no_args_is_help=True, help="Experiments: the rates of their arms.")


@experiment.command()
def report(address: Address = "", tenant: Tenant = "", json: AsJson = False) -> None:
    """Rates of each arm per item shown, in percent, with 95 % intervals over users."""
    with connect(address, tenant) as client:
        found = client.experiments()
    if json:
        print_json(found)
        return
    if not found:
        console.print("there are no experiments: attribution.experiments in the settings names them")
    for each in found:
        print_table(f"{each.experiment}, salt {each.salt}", COLUMNS, _rows(each))


COLUMNS = ("arm", "users", "shown", "measure", "rate %", "against baseline %")


def _rows(found: ExperimentReport) -> Iterator[tuple[object, ...]]:
    for arm in found.arms:
        for number, rate in enumerate(arm.rates):
            named = (arm.arm, arm.users, arm.shown) if number == 0 else ("", "", "")
            against = "baseline" if rate.difference is None else _percent(rate.difference, "+")
            yield (*named, rate.measure, _percent(rate.rate), against)


def _percent(interval: Interval, sign: str = "") -> str:
    estimate, low, high = (100 * each for each in (interval.estimate, interval.low, interval.high))
    return f"{estimate:{sign}.1f} [{low:{sign}.1f}, {high:{sign}.1f}]"
