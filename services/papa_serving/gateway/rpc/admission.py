"""Admission: what a call needs before any work is done for it.

That is a first message within some time, a scope for its method, a place among the calls in flight, room for its bytes,
and enough of its tenant's and its user's rate. All limits are those of one gateway process.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from papa_serving.contracts.errors import Forbidden, Overloaded, RateLimited, RequestLate
from papa_serving.contracts.identity import UserKey
from papa_serving.gateway.auth.identity import ANYBODY, Identity, Scope
from papa_serving.settings import RateSettings
from papa_serving.stubs.serving.v1 import types_pb2

Owner = tuple[str, ...]
"""The owner for whom a call is counted: its kind, then its name."""

GROUP_WEIGHT = 7
"""One tenant or connection holds up to seven eighths of the places: the last eighth is for others."""

_ANY = frozenset(Scope)
_GENERATE, _FEEDBACK, _ADMIN = frozenset({Scope.GENERATE}), frozenset({Scope.FEEDBACK}), frozenset({Scope.ADMIN})
_CATALOGUE = frozenset({Scope.CATALOGUE})

SCOPES: Mapping[str, frozenset[Scope]] = {
    "GenerationService/Generate": _GENERATE,
    "GenerationService/StreamGenerate": _GENERATE,
    "GenerationService/GenerateMany": _GENERATE,
    "GenerationService/GetItem": _GENERATE,
    "FeedbackService/SubmitFeedback": _FEEDBACK,
    "FeedbackService/StreamFeedback": _FEEDBACK,
    "UserService/GetUser": _ANY,
    "UserService/ListUsers": _ADMIN,
    "UserService/WatchUser": _ANY,
    "UserService/ListRevisions": _ANY,
    "UserService/RollbackAdapter": _ADMIN,
    "UserService/ResetUser": _ADMIN,
    "UserService/DeleteUser": _ADMIN,
    "UserService/MergeUsers": _ADMIN,
    "UserService/ExportUser": _ADMIN,
    "UserService/ImportAdapter": _ADMIN,
    "CatalogueService/PutItems": _CATALOGUE,
    "CatalogueService/DeleteItems": _CATALOGUE,
    "CatalogueService/GetItem": _CATALOGUE,
    "CatalogueService/ListItems": _CATALOGUE,
    "CatalogueService/ListCatalogues": _CATALOGUE,
    "RecommendService/Recommend": _GENERATE,
    "RecommendService/Rank": _GENERATE,
    "InfoService/GetServerInfo": _ANY,
    "ExperimentService/GetReport": _ADMIN,
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


class Connections:
    """The calls of each connection, from their start to their end."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._calls: Counter[Owner] = Counter()

    @contextmanager
    def call(self, connection: Owner) -> Iterator[None]:
        """Counts one call. Raises Overloaded for a connection that carries `limit` of them."""
        if self._calls[connection] >= self._limit:
            raise Overloaded(f"this connection carries {self._limit} calls and may carry no more")
        self._calls[connection] += 1
        try:
            yield
        finally:
            self._calls[connection] -= 1
            if not self._calls[connection]:
                del self._calls[connection]


class Arrivals:
    """The calls whose first message has not arrived yet. They hold nothing but a stream of their connection.

    When there are too many, the oldest call of the owner with the most of them is dropped. Silent calls of one owner
    therefore never keep out the calls of another.
    """

    def __init__(self, limit: int, seconds: float) -> None:
        """Lets at most `limit` calls wait, each for at most `seconds`."""
        self._limit, self._seconds = limit, seconds
        self._waiting: dict[Owner, dict[Arrival, None]] = {}
        self._count = 0

    @asynccontextmanager
    async def arrival(self, connection: Owner) -> AsyncIterator[Arrival]:
        """Wraps a call from its start to its first message. Raises RequestLate, Overloaded."""
        arrival = Arrival(self, connection, asyncio.timeout(self._seconds))
        try:
            async with arrival.timeout:
                self.add(arrival)
                if self._count > self._limit:
                    self._drop_one()
                yield arrival
        except TimeoutError:
            if not arrival.timeout.expired():
                raise
            if arrival.dropped or arrival.queued:
                raise Overloaded("too many calls wait for their first message; this one was dropped") from None
            raise RequestLate(f"no message arrived within {self._seconds:g} seconds of the start of the call") from None
        finally:
            self.remove(arrival)

    def add(self, arrival: Arrival) -> None:
        """Counts the call as the youngest of its owner."""
        self._waiting.setdefault(arrival.owner, {})[arrival] = None
        self._count += 1

    def remove(self, arrival: Arrival) -> None:
        """Ends the wait of a call. A dropped call is not counted any more."""
        waiting = self._waiting.get(arrival.owner, {})
        if arrival in waiting:
            self._count -= 1
            del waiting[arrival]
            if not waiting:
                del self._waiting[arrival.owner]

    def _drop_one(self) -> None:
        owner = max(self._waiting, key=lambda each: len(self._waiting[each]))
        oldest = next(iter(self._waiting[owner]))
        self.remove(oldest)
        oldest.drop()


class Arrival:
    """One call that waits for its first message."""

    def __init__(self, arrivals: Arrivals, owner: Owner, timeout: asyncio.Timeout) -> None:
        self._arrivals, self.owner, self.timeout = arrivals, owner, timeout
        self.dropped = self.queued = False

    def drop(self) -> None:
        """Ends the wait with Overloaded, unless its time is up already."""
        self.dropped = True
        if not self.timeout.expired():
            self.timeout.reschedule(asyncio.get_running_loop().time())

    def assign(self, identity: Identity) -> None:
        """Counts the call for the user or tenant that its credential proves, no longer for its connection."""
        if identity.bound and not self.dropped:
            self._arrivals.remove(self)
            self.owner = ("identity", identity.tenant, identity.user)
            self._arrivals.add(self)


class Readings:
    """The calls whose first message is being read, `most` at a time.

    gRPC lets a caller send the whole of a message once the server asks for it. So the number of calls that are asked at
    the same time bounds the bytes that arrive together; the others' messages wait with the callers, but for one window
    of HTTP/2 each. A tenant, or a connection without credentials, takes a quarter of the turns, and more only while
    less than a quarter is taken in all. The next turn is of the tenant with the fewest, and of its user with the
    fewest. While calls wait, the oldest turn of the user with the most in the tenant with the most ends after PATIENCE
    seconds: silent calls never keep out those of another tenant or connection, and a message of this one but briefly.
    """

    PATIENCE = 2.0

    def __init__(self, most: int) -> None:
        """Raises ValueError for less than one turn."""
        if most < 1:
            raise ValueError(f"{most} first messages at once are too few")
        self._most, self._quarter = most, max(1, most // 4)
        self._owners, self._groups = Counter[Owner](), Counter[Owner]()
        self._reading: dict[Arrival, tuple[Owner, float]] = {}
        """Calls with a turn: whose it is and since when, the oldest first."""
        self._queues: dict[Owner, dict[asyncio.Future[None], None]] = {}
        self._watch: asyncio.TimerHandle | None = None

    @property
    def taken(self) -> int:
        """Turns that are taken."""
        return self._owners.total()

    @property
    def waiting(self) -> int:
        """Calls that wait for a turn."""
        return sum(map(len, self._queues.values()))

    @asynccontextmanager
    async def turn(self, arrival: Arrival) -> AsyncIterator[None]:
        """Waits for a turn, and ends it with the block."""
        owner = arrival.owner
        if self._free(owner):
            self._take(owner)
        else:
            arrival.queued = True
            await self._wait(owner)
            arrival.queued = False
        self._reading[arrival] = (owner, time.monotonic())
        try:
            yield
        finally:
            self._reading.pop(arrival, None)
            self._give_back(owner)

    def _free(self, owner: Owner) -> bool:
        taken = self.taken
        return taken < self._quarter or (taken < self._most and self._groups[_group(owner)] < self._quarter)

    def _take(self, owner: Owner) -> None:
        self._owners[owner] += 1
        self._groups[_group(owner)] += 1

    def _give_back(self, owner: Owner) -> None:
        """Ends a turn and gives out what is free then."""
        for counts, key in ((self._owners, owner), (self._groups, _group(owner))):
            counts[key] -= 1
            if not counts[key]:
                del counts[key]
        while (following := self._next()) is not None:
            self._take(following)
            # The oldest of them; one that was cancelled stays in the queue until its task has seen it.
            turn = next(turn for turn in self._queues[following] if not turn.done())
            self._leave(following, turn)
            turn.set_result(None)

    def _next(self) -> Owner | None:
        """Who gets the next turn, if there is one for anybody who waits."""
        able = [
            owner
            for owner, queue in self._queues.items()
            if self._free(owner) and not all(turn.done() for turn in queue)
        ]
        return min(able, key=self._turns, default=None)

    def _turns(self, owner: Owner) -> tuple[int, int]:
        return self._groups[_group(owner)], self._owners[owner]

    async def _wait(self, owner: Owner) -> None:
        """Until a turn is given to this call, which is taken then."""
        turn = asyncio.get_running_loop().create_future()
        self._queues.setdefault(owner, {})[turn] = None
        if self._watch is None:
            self._end_one()
        try:
            await turn
        except asyncio.CancelledError:
            self._leave(owner, turn)
            if not turn.cancelled():
                self._give_back(owner)
            raise

    def _leave(self, owner: Owner, turn: asyncio.Future[None]) -> None:
        queue = self._queues.get(owner, {})
        queue.pop(turn, None)
        if not queue:
            self._queues.pop(owner, None)

    def _end_one(self) -> None:
        """Ends one turn that has lasted too long, and looks again soon, while calls wait."""
        self._watch = None
        if not self._queues:
            return
        late = time.monotonic() - self.PATIENCE
        if self._reading:
            greatest = max(self._owners, key=self._turns)
            oldest = next((each for each, (owner, _) in self._reading.items() if owner == greatest), None)
            if oldest is not None and not oldest.dropped and self._reading[oldest][1] <= late:
                oldest.drop()
        self._watch = asyncio.get_running_loop().call_later(self.PATIENCE / self._most, self._end_one)


def _group(owner: Owner) -> Owner:
    """The tenant of a user; a connection is its own group."""
    return owner[:2] if owner[0] == "identity" else owner


class Places:
    """The calls in flight, from their first message to their end.

    A user never holds more places than are left for everybody else. A tenant, or a connection where callers have no
    credentials, never holds more than GROUP_WEIGHT times as many as are left. One of them alone can thus not fill the
    gateway.
    """

    def __init__(self, limit: int, *, tenant_limit: int = 0, group_limit: int = 0) -> None:
        """`limit` counts all calls, `tenant_limit` those of one tenant, `group_limit` those of one tenant or
        connection; 0 stands for no such limit."""
        self.limit, self._tenant_limit, self._group_limit = limit, tenant_limit, group_limit
        self.in_flight = 0
        self._held: Counter[Owner] = Counter()

    @contextmanager
    def place(self, connection: Owner, identity: Identity) -> Iterator[Place]:
        """The place of one call until its end, owned by the user, tenant or connection. Raises Overloaded."""
        if self.in_flight >= self.limit:
            raise Overloaded(f"the gateway handles {self.limit} calls at once and no more")
        place = Place(self)
        free, self.in_flight = self.limit - self.in_flight, self.in_flight + 1
        try:
            group = ("tenant", identity.tenant) if identity.bound else connection
            place.claim(group, self._group_limit or GROUP_WEIGHT * free)
            if self._tenant_limit:
                place.claim(("tenant of a limit", identity.tenant), self._tenant_limit)
            if identity.user:
                place.claim_user(UserKey(identity.tenant, identity.user))
            yield place
        finally:
            self.in_flight -= 1
            place.release()

    def take(self, owner: Owner, most: int) -> None:
        """Counts a call of `owner`, who may hold `most` of them, and always one. Raises Overloaded."""
        held = self._held[owner]
        if held and held >= most:
            raise Overloaded(f"this {owner[0]} has {held} calls under way and may have no more at the moment")
        self._held[owner] = held + 1

    def give_back(self, owner: Owner) -> None:
        """Ends a call of `owner`. Owners without calls are forgotten, so that memory follows the calls in flight."""
        self._held[owner] -= 1
        if not self._held[owner]:
            del self._held[owner]


class Place:
    """The place of one call, and who it is counted for."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._owners: list[Owner] = []
        self._user: UserKey | None = None

    def claim(self, owner: Owner, most: int) -> None:
        """Counts the call for `owner`, who may hold `most` places. Raises Overloaded."""
        self._places.take(owner, most)
        self._owners.append(owner)

    def claim_user(self, user: UserKey) -> None:
        """Counts the call for the first user that it names; further ones change nothing. Raises Overloaded."""
        if self._user is None:
            self.claim(("user", user.tenant, user.user), self._places.limit - self._places.in_flight)
            self._user = user

    def release(self) -> None:
        """Gives the place back."""
        for owner in self._owners:
            self._places.give_back(owner)


class HeldBytes:
    """The bytes of the requests in flight: calls are few or many, but memory is bytes.

    They are counted for the user, the tenant or the connection that a call belongs to. As with places, a user never
    holds more than is left for everybody else, a tenant or a connection without credentials never more than
    GROUP_WEIGHT times as much; each may always hold one message that still fits.
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
                raise _rate_limited(subject, wait)
        self.owe(user, cost)

    def charge_tenant(self, tenant: str, cost: float) -> None:
        """Charges a tenant for what concerns no user. Raises RateLimited."""
        now = self._clock()
        if (wait := self.tenants.wait(tenant, cost, now)) > 0:
            raise _rate_limited(f"tenant:{tenant}", wait)
        self.tenants.take(tenant, cost, now)

    def owe(self, user: UserKey, cost: float) -> None:
        """Charges what is being done already, even where that leaves a debt."""
        now = self._clock()
        self.users.take(user, cost, now)
        self.tenants.take(user.tenant, cost, now)


def _rate_limited(subject: str, wait: float) -> RateLimited:
    kind = subject.partition(":")[0]
    return RateLimited(
        f"this {kind} asks for more than its rate allows", retry_after=wait, metadata={"subject": subject}
    )


@dataclass(frozen=True)
class Caller:
    """The caller of the current call, and the limits that apply to it."""

    identity: Identity = ANYBODY
    meter: Meter | None = None
    place: Place | None = None

    def charge(self, user: types_pb2.User, cost: float = 1.0) -> UserKey:
        """Charges the user that a request names with `cost` and returns their key.

        Raises Forbidden for a tenant or user that the credential does not reach, RateLimited, Overloaded.
        """
        key = self.identity.reach(user)
        if self.place is not None:
            self.place.claim_user(key)
        if self.meter is not None:
            self.meter.charge(key, cost)
        return key

    def charge_tenant(self, tenant: str, cost: float = 1.0) -> str:
        """Charges the tenant that a request about no user names ("" is the caller's own), and returns its name.

        Raises Forbidden for a credential that does not reach the whole tenant, RateLimited.
        """
        named = self.identity.reach_whole_tenant(tenant)
        if self.meter is not None:
            self.meter.charge_tenant(named, cost)
        return named

    def charge_tenants(self, tenant: str) -> str:
        """The same for a request that is about all tenants where it names none and no credential binds the caller: ""
        is returned then, and the caller's own tenant is charged."""
        named = self.charge_tenant(tenant)
        return named if self.identity.bound or tenant else ""

    def owe(self, user: UserKey, cost: float) -> None:
        """Charges a user whom the call has reached for work beyond what it was charged with at first."""
        if self.meter is not None:
            self.meter.owe(user, cost)


NOBODY = Caller()

caller: ContextVar[Caller] = ContextVar("caller", default=NOBODY)
"""Set by the edge before a servicer is reached."""
