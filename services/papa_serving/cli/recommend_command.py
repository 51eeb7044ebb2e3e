"""`papa recommend`: real items of a catalogue for a user."""

from __future__ import annotations

import json as json_format
import math
import re
from collections.abc import Iterable
from typing import Annotated

import typer

from papa_serving.cli.connection import Address, Tenant, UserId, connect
from papa_serving.cli.output import AsJson, console, print_json, print_table
from papa_serving.client import AnyOf, Between
from papa_serving.client.records import Condition
from papa_serving.local.failure import Failure

Count = Annotated[int, typer.Option("--count", "-n", min=1, help="Number of items.")]
Name = Annotated[str, typer.Option("--catalogue", help="The catalogue's name; its default one when absent.")]
Where = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        metavar="KEY=VALUE",
        help="Only items with this value, or with one of several texts as a|b. A bare number or flag is compared with "
        "numbers or flags, and a text in double quotes with texts. For numbers also KEY>=VALUE and KEY<=VALUE, for "
        "keys of several texts KEY~VALUE. May be given several times.",
        show_default=False,
    ),
]
Diversity = Annotated[float | None, typer.Option("--diversity", min=0, max=1, help="0 is by probability alone.")]
Floor = Annotated[
    float | None,
    typer.Option("--min-like-probability", min=0, max=1, help="Fewer items rather than less likely liked ones."),
]
Exploration = Annotated[float | None, typer.Option("--exploration", min=0, max=1, help="Share of items that teach.")]
Seen = Annotated[bool, typer.Option("--seen", help="Also what was recommended lately.")]

_WHERE = re.compile(r"([^=<>~]+)(>=|<=|=|~)(.*)", re.DOTALL)


def recommend(
    user: UserId,
    count: Count = 10,
    catalogue: Name = "",
    where: Where = None,
    diversity: Diversity = None,
    min_like_probability: Floor = None,
    exploration: Exploration = None,
    seen: Seen = False,
    address: Address = "",
    tenant: Tenant = "",
    json: AsJson = False,
) -> None:
    """Choose items of a catalogue for a user."""
    filters = _filters(where or ())
    with connect(address, tenant) as client:
        found = client.recommend(
            user,
            count,
            catalogue=catalogue,
            filters=filters,
            diversity=diversity,
            exclude_seen=not seen,
            min_like_probability=min_like_probability,
            exploration=exploration,
        )
    if json:
        print_json(found)
        return
    rows = [
        (each.item_id, "" if each.like_probability is None else f"{each.like_probability:.2f}", each.reason.value)
        for each in found.items
    ]
    print_table("", ("item", "liked with", "why"), rows)
    if not rows and any(isinstance(each, float) for each in filters.values()):
        console.print(
            "No item passes. A bare number is compared with numbers; a text of digits needs quotes: 'KEY=\"3\"'."
        )
    if not found.personal:
        console.print(f"Nothing is known of {user} yet: these are near all kinds of what the backbone draws.")


def _filters(where: Iterable[str]) -> dict[str, Condition]:
    """The conditions by their keys; a lower and an upper bound of one key become one. Raises Failure."""
    filters: dict[str, Condition] = {}
    for key, condition in map(_condition, where):
        filters[key] = _both(key, filters[key], condition) if key in filters else condition
    return filters


def _both(key: str, first: Condition, second: Condition) -> Between:
    """Raises Failure unless these are one lower and one upper bound."""
    if isinstance(first, Between) and isinstance(second, Between):
        match first.low, first.high, second.low, second.high:
            case low, None, None, high:
                return Between(low, high)
            case None, high, low, None:
                return Between(low, high)
    raise Failure(
        f"two --where name the key {key}", "give it once, several texts as a|b, or one KEY>=VALUE and one KEY<=VALUE"
    )


def _condition(text: str) -> tuple[str, Condition]:
    """One --where; the first operator ends the key. Raises Failure."""
    found = _WHERE.fullmatch(text)
    if found is None:
        raise _bad(text)
    key, sign, value = found.groups()
    return key, _of_sign(text, sign, value)


def _of_sign(text: str, sign: str, value: str) -> Condition:
    if sign == "=":
        return _plain(text, value)
    if sign == "~":
        return AnyOf(tuple(value.split("|")), of_several=True)
    try:
        number = float(value)
    except ValueError:
        raise _bad(text) from None
    if not math.isfinite(number):
        raise _bad(text)
    return Between(low=number) if sign == ">=" else Between(high=number)


def _plain(text: str, value: str) -> Condition:
    """A number or a flag where it is written as one, else a text or several; in JSON's quotes always one text."""
    try:
        read = json_format.loads(value, parse_int=float)
    except ValueError:
        read = None
    if isinstance(read, bool | str) or (isinstance(read, float) and math.isfinite(read)):
        return read
    if value.startswith('"'):
        raise _bad(text)
    return AnyOf(tuple(value.split("|"))) if "|" in value else value


def _bad(text: str) -> Failure:
    return Failure(f"--where {text} is no condition", "for instance --where kind=shoe --where 'price<=50'")
