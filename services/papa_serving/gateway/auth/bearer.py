"""Bearer tokens: finds them in a call's metadata and chooses how they are checked.

A token is a JSON Web Token or, for development, one of the static keys in a file. Each of these stands for a tenant, or
for one user of it, and has scopes.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from papa_serving.contracts.errors import Unauthenticated
from papa_serving.gateway.auth.identity import Authenticate, Identity, Scope, anybody
from papa_serving.settings import AuthSettings
from papa_serving.watched_file import WatchedFile

HEADER, SCHEME = "authorization", "bearer"
# gRPC itself refuses more than 8 KiB of metadata; no JWT in use comes near.
MAX_TOKEN = 7_000


def bearer_token(metadata: Mapping[str, str]) -> str:
    """Returns the token of a call. Raises Unauthenticated for a call without one."""
    scheme, _, token = metadata.get(HEADER, "").partition(" ")
    token = token.strip()
    if scheme.lower() != SCHEME or not token:
        raise Unauthenticated("send a bearer token in the authorization metadata")
    if len(token) > MAX_TOKEN:
        raise Unauthenticated("the token is too long")
    return token


def open_authenticator(settings: AuthSettings) -> Authenticate:
    """Returns the authenticator that the settings describe.

    Raises ValueError for keys that cannot be read: a gateway that cannot authenticate its callers must not start.
    """
    if settings.mode == "none":
        return anybody
    if settings.mode == "keys":
        static = StaticKeys(settings)

        async def by_key(metadata: Mapping[str, str]) -> Identity:
            return static.identity(bearer_token(metadata))

        return by_key
    from papa_serving.gateway.auth.jwt_tokens import JwtTokens

    tokens = JwtTokens(settings)

    async def by_jwt(metadata: Mapping[str, str]) -> Identity:
        return await tokens.identity(bearer_token(metadata))

    return by_jwt


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
