"""All settings that are seconds have a bound: Redis and timers take no endless time."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
from papa_serving.settings import Settings
from papa_serving.settings.section import LONGEST, Section
from pydantic import ValidationError


def seconds(section: type[Section] | type[Settings]) -> Iterator[tuple[type[Section] | type[Settings], str]]:
    """The settings in seconds, each with its section. A share, a count or a rate is none."""
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from seconds(field.annotation)
        elif (
            field.annotation is float
            and "second" in f"{name} {field.description}"
            and "per second" not in (field.description or "")
        ):
            yield section, name


FOUND = list(seconds(Settings))


def test_the_known_ones_are_among_them() -> None:
    names = {name for _, name in FOUND}
    assert {"ttl", "item_ttl", "event_id_ttl", "seen_ttl", "tombstone_ttl", "lease", "max_wait"} <= names
    assert len(FOUND) >= 20


@pytest.mark.parametrize(("section", "name"), FOUND, ids=lambda each: each if isinstance(each, str) else each.__name__)
def test_seconds_are_at_most_ten_years(section: type[Section], name: str) -> None:
    for endless in (math.inf, math.nan, 1e17, LONGEST * 1.01):
        with pytest.raises(ValidationError, match=name):
            section(**{name: endless})
