"""The public keys that verify tokens: a JWKS or PEM file, or a JWKS behind a URL. Both may rotate while we run."""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import re
import socket
import threading
import time
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from contextlib import suppress
from email.message import Message
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from papa_serving.contracts.errors import KeysUnavailable
from papa_serving.watched_file import WatchedFile

log = logging.getLogger(__name__)

MAX_KEYS = 64
FETCH_SECONDS = 5.0
MAX_BYTES = 2**18
# Anybody can name an unknown key. The authority is asked about unknown names once in so many seconds at most.
PAUSE = 10.0
# Seconds for which keys are used while the authority does not answer. Later, one of them may have been withdrawn.
LONGEST = 86_400.0
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_PEM = re.compile(rb"-----BEGIN PUBLIC KEY-----.+?-----END PUBLIC KEY-----\n?", re.DOTALL)

Keys = tuple[jwt.PyJWK, ...]


class KeyRing(ABC):
    """A source of keys."""

    @abstractmethod
    async def candidates(self, kid: str) -> Keys:
        """Returns the keys that may have signed a token whose header names `kid` ("" for none). Raises
        KeysUnavailable."""


class FileKeys(KeyRing):
    """Keys of a file. A changed file is read again."""

    def __init__(self, path: Path) -> None:
        """Raises ValueError for a file that holds no keys."""
        try:
            self._file = WatchedFile((path,), lambda: parse_keys(path.read_bytes()))
        except OSError as error:
            raise ValueError(f"gateway.auth.jwks {path} cannot be read: {error.strerror}") from error

    async def candidates(self, kid: str) -> Keys:
        """Answers from memory."""
        return chosen(self._file.value(), kid)


class RemoteKeys(KeyRing):
    """Keys that an authority publishes.

    They are fetched when they are old or lack a key, but never more often than strangers' tokens should cause.
    """

    def __init__(self, url: str, refresh: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises ValueError for a URL that is not https (http is for this machine alone)."""
        parts = urlsplit(url)
        if parts.scheme != "https" and (parts.scheme, parts.hostname in _LOOPBACK) != ("http", True):
            raise ValueError("gateway.auth.jwks must be a file or an https URL")
        self._url, self._refresh, self._clock = url, refresh, clock
        self._keys: Keys = ()
        self._fetched = self._tried = -float("inf")
        self._fetching = asyncio.Lock()
        self._renewal: asyncio.Task[None] | None = None

    async def candidates(self, kid: str) -> Keys:
        """Answers from memory; asks the authority first only where no remembered key can serve."""
        if not chosen(self._keys, kid) or self._age() > LONGEST:
            await self._renew(kid)
        elif self._age() > self._refresh and (self._renewal is None or self._renewal.done()):
            # The old keys are used meanwhile, so that nobody waits for a slow authority.
            self._renewal = asyncio.create_task(self._renew(kid))
        if self._age() > LONGEST:
            raise KeysUnavailable("the keys that tokens are checked with cannot be fetched", retry_after=PAUSE)
        return chosen(self._keys, kid)

    def _age(self) -> float:
        return self._clock() - self._fetched

    async def _renew(self, kid: str) -> None:
        """Fetches once for all who wait. A failure leaves the keys as they are."""
        async with self._fetching:
            fresh = self._age() <= self._refresh and chosen(self._keys, kid)
            if fresh or self._clock() - self._tried < PAUSE:
                return
            self._tried = self._clock()
            try:
                self._keys = await asyncio.to_thread(_fetch, self._url)
                self._fetched = self._clock()
            except (OSError, ValueError) as error:
                log.warning("cannot fetch the keys of tokens: %s", error, extra={"host": urlsplit(self._url).hostname})


def chosen(keys: Iterable[jwt.PyJWK], kid: str) -> Keys:
    """Selects the keys named `kid` and those without a name; all keys where `kid` is empty."""
    return tuple(key for key in keys if not kid or key.key_id in (kid, None))


def parse_keys(data: bytes) -> Keys:
    """Parses a JWKS, or public keys in PEM. Raises ValueError, whose message does not quote the data."""
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


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> None:
        """Follows none: another place is not the authority that the settings name."""


class _Connections(urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
    """Opens connections that can be cut: a timeout of urllib's is one for each read, which a slow peer never meets."""

    def __init__(self) -> None:
        super().__init__()
        self._opened: list[http.client.HTTPConnection] = []

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        """Remembers the connection."""
        return self.do_open(self._tracked(http.client.HTTPConnection), req)

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        """Remembers the connection."""
        return self.do_open(self._tracked(http.client.HTTPSConnection), req)

    def _tracked(self, kind: type[http.client.HTTPConnection]) -> Any:
        def connect(*arguments: Any, **options: Any) -> http.client.HTTPConnection:
            self._opened.append(kind(*arguments, **options))
            return self._opened[-1]

        return connect

    def cut(self) -> None:
        """Ends what is being connected, greeted or asked; whoever waits for it gets an OSError."""
        for connection in self._opened:
            open_socket = getattr(connection, "sock", None)
            if open_socket is not None:
                with suppress(OSError):
                    open_socket.shutdown(socket.SHUT_RDWR)


def _fetch(url: str) -> Keys:
    """Takes FETCH_SECONDS for the headers and as long for the body at most. Raises OSError, ValueError."""
    connections = _Connections()
    opener = urllib.request.build_opener(connections, _NoRedirects)
    timer = threading.Timer(FETCH_SECONDS, connections.cut)
    timer.start()
    try:
        answer = opener.open(url, timeout=FETCH_SECONDS)
    except http.client.HTTPException as error:
        raise OSError("the authority's answer is not HTTP, or took too long") from error
    finally:
        timer.cancel()
    with answer:
        return parse_keys(_body(answer))


def _body(answer: http.client.HTTPResponse) -> bytes:
    data, deadline = b"", time.monotonic() + FETCH_SECONDS
    while piece := answer.read1(MAX_BYTES):
        data += piece
        if len(data) > MAX_BYTES:
            raise ValueError(f"the JWKS is larger than {MAX_BYTES} bytes")
        if time.monotonic() > deadline:
            raise TimeoutError(f"the JWKS took longer than {FETCH_SECONDS:g} seconds")
    return data
