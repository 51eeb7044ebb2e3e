"""PAPA_* variables: recognises those that name a setting, and passes settings to child processes.

A variable that names no setting is not an error: a deployment sets some for its own use, Kubernetes sets some beside a
Service whose name begins with papa, and a ConfigMap may be of a newer release than the process that reads it.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from pydantic import BaseModel, SecretStr

PREFIX = "PAPA_"
FILE_VARIABLE = "PAPA_CONFIG"
"""Names the settings file; "" reads none."""

_NEAR = 0.85
"""Similarity from which one name is reported as a misspelling of another."""

_OF_KUBERNETES = re.compile(
    r"PAPA(_\w+?)??_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)


def known_variables(settings: type[BaseModel]) -> set[str]:
    """The variables that name a setting, or a whole section (as JSON)."""
    return {FILE_VARIABLE, *_variables(settings, PREFIX)}


def unknown_variables(settings: type[BaseModel], environment: Mapping[str, str]) -> Iterator[str]:
    """A line for each variable that names no setting, with the setting that it nearly names.

    Variables that Kubernetes sets for a Service ("service links") are ignored.
    """
    known = known_variables(settings)
    for variable in sorted(environment):
        name = variable.upper()
        if not name.startswith(PREFIX) or name in known or _is_service_link(name, environment):
            continue
        near = difflib.get_close_matches(name, known, n=1, cutoff=_NEAR)
        yield f"the variable {variable} names no setting" + (f"; did you mean {near[0]}?" if near else "")


def _is_service_link(name: str, environment: Mapping[str, str]) -> bool:
    found = _OF_KUBERNETES.fullmatch(name)
    return found is not None and f"PAPA{found[1] or ''}_SERVICE_HOST" in environment


def _variables(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, info in model.model_fields.items():
        yield (variable := f"{prefix}{name.upper()}")
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield from _variables(info.annotation, f"{variable}__")


def settings_environment(settings: BaseModel) -> dict[str, str]:
    """The variables that make `Settings()` equal to `settings` in another process, whatever papa.toml it finds there.

    Values that are absent stay unset.
    """
    return {FILE_VARIABLE: "", **dict(_values("PAPA", settings))}


@contextmanager
def in_environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Sets variables for this process and its new children within the block, then restores the environment."""
    before = dict(os.environ)
    os.environ |= variables
    try:
        yield
    finally:
        os.environ.clear()
        os.environ |= before


def _values(name: str, value: object) -> list[tuple[str, str]]:
    if isinstance(value, BaseModel):
        prefix = "PAPA_" if name == "PAPA" else f"{name}__"
        fields = type(value).model_fields
        return [each for field in fields for each in _values(f"{prefix}{field.upper()}", getattr(value, field))]
    return [] if value is None else [(name, _text(value))]


def _text(value: object) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return json.dumps(plain(value)) if isinstance(value, bool | list | tuple | dict) else str(value)


def plain(value: object) -> object:
    """The value without models in it, for JSON and TOML; what is absent is left out."""
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    return value.model_dump(exclude_none=True) if isinstance(value, BaseModel) else value
