"""Converts the filters of a recommendation from the public contract, and validates them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from papa_serving.contracts.catalogue import Comparison, Filter
from papa_serving.contracts.errors import Violation
from papa_serving.gateway.conversion.catalogue_items import KEY_RULE, LARGEST_NUMBER, MAX_TEXT, MAX_TEXTS, is_key
from papa_serving.stubs.serving.v1 import catalogue_pb2, recommend_pb2

MAX_FILTERS = 16
"""Conditions of one call."""
_NUMBERS = {"equals": Comparison.IS, "at_least": Comparison.AT_LEAST, "at_most": Comparison.AT_MOST}
_TEXTS = {"any_of": Comparison.IS, "has_any_of": Comparison.HAS}


def filters(messages: Sequence[recommend_pb2.Filter], violations: list[Violation]) -> list[Filter]:
    """The filters of a call. Those that are refused are added to `violations`."""
    if len(messages) > MAX_FILTERS:
        violations.append(Violation("filters", f"must be at most {MAX_FILTERS}"))
        return []
    before = len(violations)
    for index, message in enumerate(messages):
        _check(message, f"filters[{index}]", violations)
    return [_filter(message) for message in messages] if len(violations) == before else []


def _check(message: recommend_pb2.Filter, path: str, violations: list[Violation]) -> None:
    if not is_key(message.key):
        violations.append(Violation(f"{path}.key", KEY_RULE))
    match message.WhichOneof("condition"):
        case None:
            violations.append(Violation(f"{path}.condition", "give a condition, for instance any_of"))
        case "any_of" | "has_any_of" as name:
            texts: catalogue_pb2.Texts = getattr(message, name)
            if not 1 <= len(texts.values) <= MAX_TEXTS or any(len(text) > MAX_TEXT for text in texts.values):
                what = f"must be 1 to {MAX_TEXTS} texts of at most {MAX_TEXT} characters"
                violations.append(Violation(f"{path}.{name}", what))
        case "equals" | "at_least" | "at_most" as name:
            number: float = getattr(message, name)
            if not (math.isfinite(number) and abs(number) < LARGEST_NUMBER):
                violations.append(Violation(f"{path}.{name}", f"must be finite, and below {LARGEST_NUMBER:g}"))


def _filter(message: recommend_pb2.Filter) -> Filter:
    name = message.WhichOneof("condition") or ""
    if name in _TEXTS:
        return Filter(message.key, _TEXTS[name], tuple(getattr(message, name).values))
    if name in _NUMBERS:
        return Filter(message.key, _NUMBERS[name], (float(getattr(message, name)),))
    return Filter(message.key, Comparison.IS, (bool(getattr(message, "is")),))
