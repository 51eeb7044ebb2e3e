"""A JWKS behind a URL: fetched when it is old or lacks a key, never more often than strangers' tokens should cause."""

from __future__ import annotations

import asyncio
import logging
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from email.message import Message
from typing import IO
from urllib.parse import urlsplit

from papa_serving.contracts.errors import KeysUnavailable
from papa_serving.gateway.key_ring import KeyRing, Keys, chosen, parse_keys

log = logging.getLogger(__name__)

FETCH_SECONDS = 5.0
MAX_BYTES = 2**18
# Anybody can name a key that nobody has; the authority is asked about such names this often at most.
PAUSE = 10.0
# While the authority is away its keys stay good for so long, and no longer: one of them may have been withdrawn.
LONGEST = 86_400.0
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class RemoteKeys(KeyRing):
    """Keys of an authority."""

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
        """From memory, after a look at the authority where that can help."""
        if not chosen(self._keys, kid) or self._age() > LONGEST:
            await self._renew(kid)
        elif self._age() > self._refresh and (self._renewal is None or self._renewal.done()):
            # Those keys are good meanwhile: nobody waits for a slow authority.
            self._renewal = asyncio.create_task(self._renew(kid))
        if self._age() > LONGEST:
            raise KeysUnavailable("the keys that tokens are checked with cannot be fetched", retry_after=PAUSE)
        return chosen(self._keys, kid)

    def _age(self) -> float:
        return self._clock() - self._fetched

    async def _renew(self, kid: str) -> None:
        """One fetch for all who wait; a failure leaves the keys as they are."""
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


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> None:
        """Elsewhere is not the authority that the settings name."""


def _fetch(url: str) -> Keys:
    """Raises OSError, ValueError."""
    opener = urllib.request.build_opener(_NoRedirects)
    with opener.open(url, timeout=FETCH_SECONDS) as answer:
        data: bytes = answer.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"the JWKS is larger than {MAX_BYTES} bytes")
    return parse_keys(data)
