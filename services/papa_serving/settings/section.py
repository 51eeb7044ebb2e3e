"""The base of all sections of the settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

LONGEST = 10 * 365 * 86_400.0
"""The longest time that a setting in seconds may have, ten years: Redis and timers take no infinite one."""


class Section(BaseModel):
    """Base of all sections: frozen, strict about unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def check_secret_file(given: Any, name: str) -> Any:
    """Returns `given`. Raises ValueError if `name`_file is to hold the secret `name` and cannot be read or is empty.

    The secret itself is not read here, since the file may be replaced later.
    """
    found = with_secret_of_file(given, name)
    if found is not given and not found[name]:
        raise ValueError(f"{name}_file is empty")
    return given


def with_secret_of_file(given: dict[str, Any], name: str) -> dict[str, Any]:
    """Adds the secret `name` from the file that `name`_file names, if the secret itself is not given.

    Raises ValueError for a file that cannot be read.
    """
    if not isinstance(given, dict) or not given.get(f"{name}_file") or given.get(name):
        return given
    try:
        secret = Path(given[f"{name}_file"]).read_text().strip()
    except OSError as error:
        raise ValueError(f"{name}_file cannot be read: {error.strerror}") from error
    return {**given, name: secret}
