"""The bytes of the requests that are handled at once: calls are few or many, but memory is bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from papa_serving.contracts.errors import Overloaded
from papa_serving.gateway.auth.identity import Identity
from papa_serving.gateway.rpc.admission import GROUP_WEIGHT, Owner


class HeldBytes:
    """Counts them for the user, the tenant or the connection that a call belongs to.

    As with places, a user never holds more than is left for everybody else, a tenant or a connection without
    credentials never more than GROUP_WEIGHT times as much; each may always hold one message that still fits.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._total = limit, 0
        self._held: Counter[Owner] = Counter()

    @contextmanager
    def held(self, connection: Owner, identity: Identity, size: int) -> Iterator[Callable[[], None]]:
        """Holds `size` bytes until the end of the block, or until the given function is called. Raises Overloaded."""
        owner, weight = _owner(connection, identity)
        free, mine = self._limit - self._total, self._held[owner]
        if size > free or (mine and mine + size > weight * free):
            raise Overloaded(
                f"the gateway handles requests of {self._limit} bytes at once, and this {owner[0]} has {mine} of them"
            )
        self._total += size
        self._held[owner] += size
        with ExitStack() as held:
            held.callback(self._release, owner, size)
            yield held.close

    def _release(self, owner: Owner, size: int) -> None:
        self._total -= size
        self._held[owner] -= size
        if not self._held[owner]:
            del self._held[owner]


def _owner(connection: Owner, identity: Identity) -> tuple[Owner, int]:
    if not identity.bound:
        return connection, GROUP_WEIGHT
    if not identity.user:
        return ("tenant", identity.tenant), GROUP_WEIGHT
    return ("user", identity.tenant, identity.user), 1
