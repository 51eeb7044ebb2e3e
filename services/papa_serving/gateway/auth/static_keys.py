"""Static keys in a file, for development. Each key stands for a tenant, or for one user of it, and has scopes."""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from papa_serving.contracts.errors import Unauthenticated
from papa_serving.gateway.auth.identity import Identity, Scope
from papa_serving.settings import AuthSettings
from papa_serving.watched_file import WatchedFile

SHORTEST = 16


class _Key(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    key: str = Field(min_length=SHORTEST)
    tenant: str = Field(min_length=1)
    user: str | None = Field(None, min_length=1)
    scopes: list[Scope] = Field(min_length=1)


class StaticKeys:
    """Looks keys up by their sha256, so that the time of a look-up reveals nothing about a key."""

    def __init__(self, settings: AuthSettings) -> None:
        """Raises ValueError for a file that cannot be used; the message quotes no key."""
        path = settings.keys_file
        assert path is not None
        try:
            self._keys = WatchedFile((path,), lambda: _read(path))
        except OSError as error:
            raise ValueError(f"gateway.auth.keys_file {path} cannot be read: {error.strerror}") from error

    def identity(self, token: str) -> Identity:
        """Raises Unauthenticated for an unknown key."""
        known = self._keys.value().get(_digest(token))
        if known is None:
            raise Unauthenticated("the key is not known")
        return known


def _read(path: Path) -> dict[bytes, Identity]:
    try:
        entries = tomllib.loads(path.read_text()).get("keys", [])
        keys = [_Key.model_validate(entry) for entry in _listed(entries)]
    except tomllib.TOMLDecodeError:
        raise ValueError(f"{path} is not valid TOML") from None
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_input=False))
        raise ValueError(f"{path}: {wrong}") from None
    known = {_digest(key.key): Identity(key.tenant, True, key.user or "", frozenset(key.scopes)) for key in keys}
    if len(known) < len(keys):
        raise ValueError(f"{path}: a key stands for two entries")
    return known


def _listed(entries: Any) -> list[Any]:
    if not isinstance(entries, list) or not entries:
        raise ValueError("the file of static keys has no [[keys]]")
    return entries


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
