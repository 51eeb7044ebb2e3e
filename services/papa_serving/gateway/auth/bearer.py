"""Bearer tokens: finds them in a call's metadata and chooses how they are checked."""

from __future__ import annotations

from collections.abc import Mapping

from papa_serving.contracts.errors import Unauthenticated
from papa_serving.gateway.auth.identity import Authenticate, Identity, anybody
from papa_serving.settings import AuthSettings

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
        from papa_serving.gateway.auth.static_keys import StaticKeys

        static = StaticKeys(settings)

        async def by_key(metadata: Mapping[str, str]) -> Identity:
            return static.identity(bearer_token(metadata))

        return by_key
    from papa_serving.gateway.auth.jwt_tokens import JwtTokens

    tokens = JwtTokens(settings)

    async def by_jwt(metadata: Mapping[str, str]) -> Identity:
        return await tokens.identity(bearer_token(metadata))

    return by_jwt
