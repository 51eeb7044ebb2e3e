"""The public keys that tokens are checked with: a JWKS or PEM in a file, or a JWKS behind a URL; both may rotate."""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from papa_serving.gateway.watched_file import WatchedFile

MAX_KEYS = 64
_PEM = re.compile(rb"-----BEGIN PUBLIC KEY-----.+?-----END PUBLIC KEY-----\n?", re.DOTALL)

Keys = tuple[jwt.PyJWK, ...]


class KeyRing(ABC):
    """Where keys come from."""

    @abstractmethod
    async def candidates(self, kid: str) -> Keys:
        """The keys that may have signed a token whose header names `kid` ("" for none). Raises KeysUnavailable."""


class FileKeys(KeyRing):
    """Keys of a file; a changed file is read anew."""

    def __init__(self, path: Path) -> None:
        """Raises ValueError for a file that holds no keys."""
        try:
            self._file = WatchedFile((path,), lambda: parse_keys(path.read_bytes()))
        except OSError as error:
            raise ValueError(f"gateway.auth.jwks {path} cannot be read: {error.strerror}") from error

    async def candidates(self, kid: str) -> Keys:
        """From memory."""
        return chosen(self._file.value(), kid)


def chosen(keys: Iterable[jwt.PyJWK], kid: str) -> Keys:
    """Those of that name and those without one; all of them where a token names none."""
    return tuple(key for key in keys if not kid or key.key_id in (kid, None))


def parse_keys(data: bytes) -> Keys:
    """A JWKS, or public keys in PEM. Raises ValueError, which does not quote the data."""
    keys = _of_pem(data) if data.lstrip().startswith(b"-----") else _of_jwks(data)
    if not 1 <= len(keys) <= MAX_KEYS:
        raise ValueError(f"it holds no key that signs, or more than {MAX_KEYS}")
    return keys


def _of_jwks(data: bytes) -> Keys:
    try:
        entries = json.loads(data)["keys"]
        signing = [entry for entry in entries if entry.get("use", "sig") == "sig"]
        return tuple(jwt.PyJWKSet(signing).keys) if signing else ()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, jwt.PyJWTError):
        raise ValueError("it is not a JWKS with keys that can be used") from None


def _of_pem(data: bytes) -> Keys:
    try:
        return tuple(jwt.PyJWK(_as_jwk(block)) for block in _PEM.findall(data))
    except (ValueError, TypeError, jwt.PyJWTError):
        raise ValueError("it is not a PEM file of public keys (RSA, EC or Ed25519)") from None


def _as_jwk(block: bytes) -> dict[str, Any]:
    """RSA means RS256 here; a JWKS can say another algorithm."""
    match load_pem_public_key(block):
        case rsa.RSAPublicKey() as key:
            return RSAAlgorithm.to_jwk(key, as_dict=True)
        case ec.EllipticCurvePublicKey() as key:
            return ECAlgorithm.to_jwk(key, as_dict=True)
        case ed25519.Ed25519PublicKey() as key:
            return OKPAlgorithm.to_jwk(key, as_dict=True)
    raise ValueError("an unknown kind of key")
