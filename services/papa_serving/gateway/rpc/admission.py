"""Admission: what a call needs before any work is done for it.

That is a scope for its method, a place among the calls in flight, and enough of its tenant's and its user's rate. All
limits are those of one gateway process.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

from papa_serving.contracts.errors import Forbidden, Overloaded, RateLimited
from papa_serving.contracts.identity import UserKey
from papa_serving.gateway.auth.identity import ANYBODY, Identity, Scope
from papa_serving.settings import RateSettings
from papa_serving.stubs.serving.v1 import types_pb2

T = TypeVar("T")

_ANY = frozenset(Scope)
_GENERATE, _FEEDBACK, _ADMIN = frozenset({Scope.GENERATE}), frozenset({Scope.FEEDBACK}), frozenset({Scope.ADMIN})

SCOPES: Mapping[str, frozenset[Scope]] = {
    "GenerationService/Generate": _GENERATE,
    "GenerationService/StreamGenerate": _GENERATE,
    "FeedbackService/SubmitFeedback": _FEEDBACK,
    "FeedbackService/StreamFeedback": _FEEDBACK,
    "UserService/GetUser": _ANY,
    "UserService/WatchUser": _ANY,
    "UserService/ListRevisions": _ANY,
    "UserService/RollbackAdapter": _ADMIN,
    "UserService/ResetUser": _ADMIN,
    "UserService/DeleteUser": _ADMIN,
    "UserService/ExportUser": _ADMIN,
    "UserService/ImportAdapter": _ADMIN,
    "InfoService/GetServerInfo": _ANY,
    "DeadLetterService/ListDeadLetters": _ADMIN,
    "DeadLetterService/RetryDeadLetter": _ADMIN,
    "DeadLetterService/DropDeadLetter": _ADMIN,
}
"""The scopes of each method; any one of them is enough. A method that is missing here is closed to every credential."""


def check_scope(identity: Identity, method: str) -> None:
    """Raises Forbidden unless the credential may be used for this method."""
    accepted = SCOPES.get(method, frozenset())
    if identity.bound and not accepted & identity.scopes:
        names = " or ".join(sorted(accepted)) or "that nobody has"
        raise Forbidden(f"the credential lacks a scope for this method: {names}")


class Places:
    """The calls in flight. One user never holds more of them than are left for everybody else."""

    def __init__(self, limit: int, tenant_limit: int = 0) -> None:
        """`limit` counts all calls; `tenant_limit` those of one tenant's credentials, 0 for no such limit."""
        self.limit, self._tenant_limit = limit, tenant_limit
        self.in_flight = 0
        self.of_tenant: Counter[str] = Counter()
        self.of_user: Counter[UserKey] = Counter()

    @contextmanager
    def place(self) -> Iterator[Place]:
        """Counts one call from its arrival to its end."""
        place = Place(self)
        self.in_flight += 1
        try:
            yield place
        finally:
            self.in_flight -= 1
            place.release()

    def check_room(self) -> None:
        """Raises Overloaded when more calls are in flight than the gateway takes."""
        if self.in_flight > self.limit:
            raise Overloaded(f"the gateway handles {self.limit} calls at once and no more")

    def take_tenant(self, tenant: str) -> None:
        """Counts a call of `tenant`. Raises Overloaded."""
        if self._tenant_limit and self.of_tenant[tenant] >= self._tenant_limit:
            raise Overloaded(f"this tenant has {self._tenant_limit} calls under way and may have no more")
        self.of_tenant[tenant] += 1

    def take_user(self, user: UserKey) -> None:
        """Counts a call of `user`. Raises Overloaded."""
        held = self.of_user[user]
        if held and held >= self.limit - self.in_flight:
            raise Overloaded(f"this user has {held} calls under way, as many as are left for others")
        self.of_user[user] += 1


class Place:
    """The place of one call. It is counted for the caller's tenant and for the first user that the call names."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._tenant: str | None = None
        self._user: UserKey | None = None

    def assign_tenant(self, tenant: str) -> None:
        """Raises Overloaded."""
        self._places.take_tenant(tenant)
        self._tenant = tenant

    def assign_user(self, user: UserKey) -> None:
        """Raises Overloaded. A second user of the same call changes nothing."""
        if self._user is None:
            self._places.take_user(user)
            self._user = user

    def release(self) -> None:
        """Gives back what the call was counted for."""
        if self._tenant is not None:
            _decrement(self._places.of_tenant, self._tenant)
        if self._user is not None:
            _decrement(self._places.of_user, self._user)


def _decrement(counter: Counter[T], name: T) -> None:
    """Forgets names at zero, so that memory follows the calls in flight."""
    counter[name] -= 1
    if not counter[name]:
        del counter[name]


SMALLEST_SWEEP = 1_024


class Buckets:
    """Leaky buckets by name, each one number: when it will be full again (the generic cell rate algorithm).

    A full bucket is forgotten, so that memory follows the names in use. What costs more than a bucket holds is let
    through when it is full, and then owed.
    """

    def __init__(self, rate: float, burst: float) -> None:
        """`rate` per second, 0 for no limit; `burst` is what a full bucket holds."""
        self._rate, self._burst = rate, burst
        self._full_at: dict[object, float] = {}
        self._sweep_at = SMALLEST_SWEEP

    def wait(self, name: object, cost: float, now: float) -> float:
        """Seconds until `cost` can be taken; 0 when it can be taken now."""
        if not self._rate:
            return 0.0
        lacking = max(0.0, self._full_at.get(name, 0.0) - now) * self._rate
        return max(0.0, (lacking + min(cost, self._burst) - self._burst) / self._rate)

    def take(self, name: object, cost: float, now: float) -> None:
        """Takes `cost`, even where that leaves the bucket in debt."""
        if not self._rate:
            return
        self._full_at[name] = max(now, self._full_at.get(name, 0.0)) + cost / self._rate
        if len(self._full_at) > self._sweep_at:
            self._full_at = {each: full_at for each, full_at in self._full_at.items() if full_at > now}
            self._sweep_at = max(SMALLEST_SWEEP, 2 * len(self._full_at))

    def __len__(self) -> int:
        return len(self._full_at)


class Meter:
    """The rates of users and of tenants. A charge that one of them refuses costs nothing of the other."""

    def __init__(self, settings: RateSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.tenants = Buckets(settings.tenant, settings.tenant_burst)
        self.users = Buckets(settings.user, settings.user_burst)

    def charge(self, user: UserKey, cost: float) -> None:
        """Raises RateLimited with the time after which the same charge can succeed."""
        now = self._clock()
        for buckets, name, subject in (
            (self.users, user, f"user:{user.user}"),
            (self.tenants, user.tenant, f"tenant:{user.tenant}"),
        ):
            if (wait := buckets.wait(name, cost, now)) > 0:
                kind = subject.partition(":")[0]
                raise RateLimited(
                    f"this {kind} asks for more than its rate allows", retry_after=wait, metadata={"subject": subject}
                )
        self.users.take(user, cost, now)
        self.tenants.take(user.tenant, cost, now)


@dataclass(frozen=True)
class Caller:
    """Who makes the current call, and the limits that it counts against."""

    identity: Identity = ANYBODY
    meter: Meter | None = None
    place: Place | None = None

    def charge(self, user: types_pb2.User, cost: float = 1.0) -> UserKey:
        """Charges the user that a request names with `cost` and returns their key.

        Raises Forbidden for a tenant or user that the credential does not reach, RateLimited, Overloaded.
        """
        key = self.identity.reach(user)
        if self.place is not None:
            self.place.assign_user(key)
        if self.meter is not None:
            self.meter.charge(key, cost)
        return key


NOBODY = Caller()

caller: ContextVar[Caller] = ContextVar("caller", default=NOBODY)
"""Set by the edge before a servicer is reached."""
