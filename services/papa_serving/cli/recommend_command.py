"""`papa recommend`: real items of a catalogue for a user."""

from __future__ import annotations

import json as json_format
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
        help="Only items with this value, of one of several as a|b. For numbers also KEY>=VALUE and KEY<=VALUE, for "
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
    filters = dict(map(_condition, where or ()))
    if len(filters) < len(where or ()):
        raise Failure("two --where name the same key", "give KEY=VALUE once, with several texts as a|b")
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
    if not found.personal:
        console.print(f"Nothing is known of {user} yet: these are near all kinds of what the backbone draws.")


def _condition(text: str) -> tuple[str, Condition]:
    """One --where. Raises Failure."""
    for sign in (">=", "<=", "~", "="):
        key, found, value = text.partition(sign)
        if found:
            return key, _of_sign(text, sign, value)
    raise _bad(text)


def _of_sign(text: str, sign: str, value: str) -> Condition:
    if sign == "~":
        return AnyOf(tuple(value.split("|")), of_several=True)
    if sign == "=" and "|" in value:
        return AnyOf(tuple(value.split("|")))
    if sign == "=":
        return _plain(value)
    try:
        number = float(value)
    except ValueError:
        raise _bad(text) from None
    return Between(low=number) if sign == ">=" else Between(high=number)


def _plain(value: str) -> Condition:
    """A number or a flag where it is written as one, else a text."""
    try:
        read = json_format.loads(value)
    except ValueError:
        return value
    return read if isinstance(read, bool | int | float) else value


def _bad(text: str) -> Failure:
    return Failure(f"--where {text} is no condition", "for instance --where kind=shoe --where 'price<=50'")
