"""JSON Web Tokens: verifies a token and reads the Identity that it proves."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jwt

from papa_serving.contracts.errors import Forbidden, Unauthenticated
from papa_serving.gateway.auth.identity import Identity, Scope
from papa_serving.gateway.auth.keys import FileKeys, KeyRing, RemoteKeys
from papa_serving.settings import AuthSettings

log = logging.getLogger(__name__)

# Verifying one signature takes well below a millisecond. A token that names no key is tried with this many at most.
MAX_TRIES = 8


class JwtTokens:
    """Checks signature, algorithm, expiry, audience and issuer, then reads tenant, user and scopes from the claims."""

    def __init__(self, settings: AuthSettings) -> None:
        """Raises ValueError for keys that cannot be read."""
        self._settings = settings
        self._ring: KeyRing = (
            RemoteKeys(settings.jwks, settings.refresh) if "://" in settings.jwks else FileKeys(Path(settings.jwks))
        )

    async def identity(self, token: str) -> Identity:
        """Raises Unauthenticated, Forbidden for a token without any scope of this service, KeysUnavailable."""
        keys = await self._ring.candidates(_kid(token))
        return self._bound(self._claims(token, keys[:MAX_TRIES]))

    def _claims(self, token: str, keys: tuple[jwt.PyJWK, ...]) -> Mapping[str, Any]:
        why = "the token is signed by nobody who is trusted here"
        for key in keys:
            try:
                claims: dict[str, Any] = jwt.decode(
                    token,
                    key,
                    algorithms=list(self._settings.algorithms),
                    audience=self._settings.audience,
                    issuer=self._settings.issuer,
                    leeway=self._settings.leeway,
                    options={"require": ["exp", "aud", "iss"], "enforce_minimum_key_length": True},
                )
            except (jwt.InvalidSignatureError, jwt.InvalidAlgorithmError, jwt.InvalidKeyError):
                continue
            except jwt.ExpiredSignatureError:
                why = "the token has expired"
            except jwt.InvalidAudienceError:
                why = "the token is for another audience"
            except jwt.InvalidIssuerError:
                why = "the token comes from another issuer"
            except jwt.MissingRequiredClaimError as error:
                why = f"the token lacks the claim {error.claim}"
            except Exception:  # whatever a parser raises over a stranger's token, the token is at fault
                why = "the token cannot be read"
            else:
                return claims
            break
        raise Unauthenticated(why)

    def _bound(self, claims: Mapping[str, Any]) -> Identity:
        settings = self._settings
        tenant = _text(claims, settings.tenant_claim, settings.tenant)
        if not tenant:
            raise Unauthenticated(f"the token names no tenant (claim {settings.tenant_claim})")
        user = _text(claims, settings.user_claim, "")
        if settings.user_claim in claims and not user:
            raise Unauthenticated(f"the token's claim {settings.user_claim} is empty")
        scopes = _scopes(claims.get(settings.scope_claim), settings.scope_prefix)
        if not scopes:
            raise Forbidden(f"the token has no scope of this service (claim {settings.scope_claim})")
        return Identity(tenant, True, user, scopes, _expiry(claims) + settings.leeway)


def _kid(token: str) -> str:
    try:
        kid = jwt.get_unverified_header(token).get("kid", "")
    except Exception as error:  # as above
        raise Unauthenticated("the token is not a JSON Web Token") from error
    return str(kid)


def _text(claims: Mapping[str, Any], name: str, otherwise: str) -> str:
    value = claims.get(name, otherwise)
    if not isinstance(value, str):
        raise Unauthenticated(f"the token's claim {name} is not a string")
    return value


def _expiry(claims: Mapping[str, Any]) -> float:
    """Seconds since the epoch. JSON numbers may be larger than any float."""
    try:
        return float(claims["exp"])
    except (OverflowError, ValueError, TypeError):
        raise Unauthenticated("the token's claim exp is not a time") from None


def _scopes(claim: object, prefix: str) -> frozenset[Scope]:
    names = claim.split() if isinstance(claim, str) else claim if isinstance(claim, list) else []
    wanted = {f"{prefix}{scope}": scope for scope in Scope}
    return frozenset(wanted[name] for name in names if isinstance(name, str) and name in wanted)
