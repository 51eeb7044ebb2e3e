"""Decides whether an item's metadata pass the filters of a call. Every backend of the catalogues agrees with it."""

from __future__ import annotations

from collections.abc import Sequence

from papa_serving.contracts.catalogue import Comparison, Filter, Metadata, Value


def passes(metadata: Metadata, filters: Sequence[Filter]) -> bool:
    """Whether an item with this metadata passes all filters."""
    return all(each.key in metadata and _passes(metadata[each.key], each) for each in filters)


def type_of(value: Value) -> str:
    """The type of a value: "text", "flag", "number" or "several". Values of two types are never equal."""
    match value:
        case str():
            return "text"
        case bool():
            return "flag"
        case tuple():
            return "several"
        case _:
            return "number"


def _passes(value: Value, asked: Filter) -> bool:
    match asked.comparison:
        case Comparison.HAS:
            return isinstance(value, tuple) and any(text in value for text in asked.values)
        case Comparison.IS:
            return any(value == other and type_of(value) == type_of(other) for other in asked.values)
        case Comparison.AT_LEAST:
            return type_of(value) == "number" and any(value >= other for other in asked.values)  # type: ignore[operator]
        case Comparison.AT_MOST:
            return type_of(value) == "number" and any(value <= other for other in asked.values)  # type: ignore[operator]
