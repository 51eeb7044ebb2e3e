"""Asks at the engine's port who calls.

The port is Ray Serve's: it has no TLS and no credentials of its own, and listens where every process of the machine, or
of the cluster's network, can reach it. So each call shows a bearer token that gateway and engine alone know.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable

from papa_serving.contracts.errors import Unauthenticated


class EngineAccess:
    """Checks the token of each call. Without any token everybody may call."""

    def __init__(self, tokens: str) -> None:
        """`tokens`: separated by white space; each is accepted, so that a new one can be brought in before an old one
        goes."""
        self._expected = [f"Bearer {token}".encode() for token in tokens.split()]

    @property
    def open(self) -> bool:
        """Whether nobody is asked."""
        return not self._expected

    def check(self, metadata: Iterable[tuple[str, str | bytes]] | None) -> None:
        """Raises Unauthenticated unless the call's metadata hold `authorization` with a token that is accepted."""
        if self.open:
            return
        given = next((value for key, value in metadata or () if key == "authorization"), "")
        shown = given if isinstance(given, bytes) else given.encode()
        # All are compared, in constant time each: how long the answer takes says nothing about a token.
        if not sum(hmac.compare_digest(shown, expected) for expected in self._expected):
            raise Unauthenticated("this port serves the gateway alone: show the token of generator.token")
