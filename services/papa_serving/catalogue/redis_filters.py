"""Translates filters into the expressions of Redis vector sets, and metadata into the attributes that these read.

A vector set compares texts by their raw JSON, looks for parts of texts, takes any value for a number, and knows neither
booleans nor exponents. So the name of an attribute tells the type of its value, and a filter reads the attribute of its
own type alone. A text stands for itself by a digest, which only equal texts share and nothing in it can end an
expression; a flag is 1 or 0; and a number is written out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from decimal import Decimal

from papa_serving.catalogue.passing import type_of
from papa_serving.contracts.catalogue import Comparison, Filter, Metadata, Value

_COMPARED = {Comparison.AT_LEAST: "number", Comparison.AT_MOST: "number", Comparison.HAS: "several"}
"""The type of value that a comparison is about; IS is about that of the filter's own value."""


def attributes(metadata: Metadata) -> str:
    """The attributes of an item, JSON."""
    return json.dumps({_name(key, type_of(value)): _attribute(value) for key, value in metadata.items()})


def expression(filters: Sequence[Filter]) -> str:
    """The expression that holds for the items that pass all filters; "" without filters."""
    return " and ".join(f"({' or '.join(_conditions(each))})" for each in filters)


def _name(key: str, kind: str) -> str:
    return f"{kind}_{key}"


def _attribute(value: Value) -> object:
    if isinstance(value, str):
        return _digest(value)
    if isinstance(value, tuple):
        return [_digest(text) for text in value]
    return int(value) if isinstance(value, bool) else value


def _conditions(asked: Filter) -> list[str]:
    compared = [(_COMPARED.get(asked.comparison, type_of(value)), _operand(value)) for value in asked.values]
    if asked.comparison is Comparison.HAS:
        return [f"{operand} in .{_name(asked.key, kind)}" for kind, operand in compared]
    sign = {Comparison.IS: "==", Comparison.AT_LEAST: ">=", Comparison.AT_MOST: "<="}[asked.comparison]
    return [f".{_name(asked.key, kind)} {sign} {operand}" for kind, operand in compared]


def _operand(value: str | float | bool) -> str:
    if isinstance(value, str):
        return f'"{_digest(value)}"'
    return str(int(value)) if isinstance(value, bool) else f"{Decimal(repr(float(value))):f}"


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=10).hexdigest()
