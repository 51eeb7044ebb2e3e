"""Settings on their way to child processes: the same names that a person would set."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from pydantic import BaseModel, SecretStr

from papa_serving.settings import Settings
from papa_serving.settings.variables import FILE_VARIABLE


def settings_environment(settings: Settings) -> dict[str, str]:
    """The PAPA_* variables that make `Settings()` equal to `settings` in another process, whatever papa.toml it finds.

    Values that are absent stay unset.
    """
    return {FILE_VARIABLE: "", **dict(_variables("PAPA", settings))}


@contextmanager
def in_environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Sets them for this process and the children that it starts inside; afterwards all is as it was."""
    before = dict(os.environ)
    os.environ |= variables
    try:
        yield
    finally:
        os.environ.clear()
        os.environ |= before


def _variables(name: str, value: object) -> list[tuple[str, str]]:
    if isinstance(value, BaseModel):
        prefix = "PAPA_" if name == "PAPA" else f"{name}__"
        fields = type(value).model_fields
        return [each for field in fields for each in _variables(f"{prefix}{field.upper()}", getattr(value, field))]
    return [] if value is None else [(name, _text(value))]


def _text(value: object) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return json.dumps(value) if isinstance(value, bool | list | tuple | dict) else str(value)
