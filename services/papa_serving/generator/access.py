"""Authenticates callers at the engine's port.

The port is Ray Serve's: it has no TLS and no credentials of its own, and listens where every process of the machine, or
of the cluster's network, can reach it. So each call shows a bearer token that gateway and engine alone know.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable

from papa_serving.contracts.errors import Unauthenticated


class EngineAccess:
    """Checks the token of each call. Without any token everybody may call."""

    def __init__(self, tokens: Callable[[], str]) -> None:
        """`tokens` returns the accepted tokens, separated by white space.

        Several may be valid at once, so that a new one can be introduced before the old one is removed.
        """
        self._tokens = tokens

    def check(self, metadata: Iterable[tuple[str, str | bytes]] | None) -> None:
        """Raises Unauthenticated unless the call's metadata hold `authorization` with a token that is accepted."""
        expected = [f"Bearer {token}".encode() for token in self._tokens().split()]
        if not expected:
            return
        given = next((value for key, value in metadata or () if key == "authorization"), "")
        shown = given if isinstance(given, bytes) else given.encode()
        # All are compared, in constant time each: how long the answer takes says nothing about a token.
        if not sum(hmac.compare_digest(shown, each) for each in expected):
            raise Unauthenticated("this port serves the gateway alone: show the token of generator.token")
