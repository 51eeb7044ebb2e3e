"""Loads settings from a file, the environment and flags, prints them, and describes errors in one line."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import SettingsConfigDict

from papa_serving.cli.output import complain
from papa_serving.local.failure import Failure
from papa_serving.settings import Settings
from papa_serving.settings.secret_urls import shown
from papa_serving.settings.variables import plain, unknown_variables

ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", help="Settings file (TOML); papa.toml where there is one.", show_default=False),
]
Overrides = Annotated[
    list[str],
    typer.Option("--set", metavar="SECTION.FIELD=VALUE", help="Any setting; may be repeated.", show_default=False),
]


SECRETS = ("redis.password", "client.token", "tracing.headers")
"""Settings that cannot be given as flags, only by file or variable."""


def load(file: Path | None, overrides: Sequence[str] = (), flags: Mapping[str, object] | None = None) -> Settings:
    """Loads settings: file < PAPA_* environment < `overrides` ("trainer.min_labels=5") < `flags` by dotted name.

    A flag of None is absent. A variable that names no setting is reported on standard error. Raises Failure for an
    unreadable file, ValidationError for values.
    """
    if file is not None and not file.is_file():
        raise Failure(f"the settings file {file} does not exist")
    chosen: dict[str, object] = dict(_assignment(each) for each in overrides)
    chosen |= {name: value for name, value in (flags or {}).items() if value is not None}
    for unknown in unknown_variables(Settings, os.environ):
        complain(f"warning: {unknown}")
    try:
        return _settings_class(file)(**_nested(chosen))
    except tomllib.TOMLDecodeError as error:
        raise Failure(f"{file or 'papa.toml'} is not valid TOML: {error}") from error


def _settings_class(file: Path | None) -> type[Settings]:
    if file is None:
        return Settings
    return type("Settings", (Settings,), {"model_config": SettingsConfigDict(toml_file=file)})


def _assignment(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise Failure(f"--set takes SECTION.FIELD=VALUE, not {text!r}", "for instance --set trainer.min_labels=5")
    if name.strip() in SECRETS:
        variable = f"PAPA_{name.strip().upper().replace('.', '__')}"
        raise Failure(f"{name.strip()} is a secret, and a command line is everybody's to see", f"set {variable}")
    return name.strip(), value


def _nested(flat: Mapping[str, object]) -> dict[str, Any]:
    """{"a.b": 1} → {"a": {"b": 1}}."""
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        *path, last = name.split(".")
        section = nested
        for part in path:
            section = section.setdefault(part, {})
        section[last] = value
    return nested


def describe(error: ValidationError) -> str:
    """Describes every invalid field in one line, without its value, which may be a secret."""
    return "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors(include_input=False))


def fields(settings: BaseModel, path: str = "") -> Iterator[tuple[str, FieldInfo, object]]:
    """Yields dotted name, definition and value of every setting; a section comes before its subsections."""
    sections: list[tuple[str, BaseModel]] = []
    for name, info in type(settings).model_fields.items():
        value = getattr(settings, name)
        if isinstance(value, BaseModel):
            sections.append((f"{path}{name}.", value))
        else:
            yield f"{path}{name}", info, value
    for prefix, section in sections:
        yield from fields(section, prefix)


def as_json(settings: Settings) -> str:
    """One JSON object, secrets masked."""
    return json.dumps(_nested({name: _shown(name, value) for name, _, value in fields(settings)}), indent=2)


def as_toml(settings: Settings) -> str:
    """A papa.toml with all settings. Absent values and secrets (masked) are commented out."""
    lines: list[str] = []
    section = ""
    for name, info, value in fields(settings):
        path, _, field = name.rpartition(".")
        if path != section:
            section = path
            lines += ["", f"[{section}]"]
        absent = (
            value is None or isinstance(value, SecretStr) or (isinstance(value, str) and _shown(name, value) != value)
        )
        assignment = ("# " if absent else "") + f"{field} = " + ("" if value is None else _toml(_shown(name, value)))
        lines.append(assignment + (f"  # {info.description}" if info.description else ""))
    return "\n".join(lines)


def _toml(value: object) -> str:
    """A value in TOML, which writes tables otherwise than JSON."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(each)}" for key, each in value.items()) + "}"
    return json.dumps(value)


def _shown(name: str, value: object) -> object:
    if isinstance(value, SecretStr):
        return str(value)
    if isinstance(value, str) and ("://" in value or name.endswith("url")):
        return shown(value)
    return str(value) if isinstance(value, Path) else plain(value)
