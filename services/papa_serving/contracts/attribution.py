"""Attribution: what users were shown, what they did, and which call led to it.

A label teaches. What is here does not: it lets an owner tell afterwards which generation or recommendation an event
came from. All of it is bounded per user, has a time to live, and goes with the user.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from papa_serving.contracts.identity import UserKey

EVENT_WEIGHTS: Mapping[str, float] = {
    "view": 0.0,
    "click": 0.2,
    "cart": 0.5,
    "purchase": 1.0,
    "like": 1.0,
    "dislike": -1.0,
    "skip": -0.2,
}
"""The types of events, and what each is worth as a grade by default. One that is worth 0 is no label."""


@dataclass(frozen=True)
class Notes:
    """A caller's own notes on an event or on a generation, which come back unchanged."""

    metadata: Mapping[str, str] = field(default_factory=dict)
    tags: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.metadata or self.tags)

    def fields(self) -> dict[str, Any]:
        """What there is of them, for a JSON object."""
        given = {"metadata": dict(self.metadata), "tags": list(self.tags)}
        return {name: value for name, value in given.items() if value}

    def encode(self) -> bytes:
        """JSON; b"" for no notes."""
        return to_json(self.fields()) if self else b""

    @classmethod
    def decode(cls, data: bytes) -> Notes:
        """The inverse of `encode`. Raises ValueError."""
        if not data:
            return cls()
        given = json.loads(data)
        return cls(dict(given.get("metadata", {})), tuple(given.get("tags", ())))


NO_NOTES = Notes()


@dataclass(frozen=True)
class Attribution:
    """What an event says beside its label: a type of EVENT_WEIGHTS, where it came from, and the caller's notes."""

    type: str = ""
    generation_id: str = ""
    recommendation_id: str = ""
    notes: Notes = NO_NOTES

    def __bool__(self) -> bool:
        return bool(self.type or self.generation_id or self.recommendation_id or self.notes)

    def fields(self) -> dict[str, Any]:
        """What there is of it, for a JSON object."""
        given = {"type": self.type, "generation_id": self.generation_id, "recommendation_id": self.recommendation_id}
        return {name: value for name, value in given.items() if value} | self.notes.fields()


UNATTRIBUTED = Attribution()


@dataclass(frozen=True)
class ShownItem:
    """One item of an impression, with what was known of it."""

    item_id: str
    like_probability: float | None = None
    exploring: bool = False

    def fields(self) -> dict[str, Any]:
        """What there is of it, for a JSON object."""
        known = {} if self.like_probability is None else {"like_probability": round(self.like_probability, 6)}
        return {"item_id": self.item_id, **known, **({"exploring": True} if self.exploring else {})}


@dataclass(frozen=True)
class Impression:
    """What a user was shown by one generation or recommendation. `catalogue` is that of recommended items, `arms` the
    arm of each experiment that the user was in."""

    origin: Literal["generation_id", "recommendation_id"]
    origin_id: str
    items: Sequence[ShownItem]
    revision: str = ""
    catalogue: str = ""
    arms: Mapping[str, str] = field(default_factory=dict)
    notes: Notes = NO_NOTES

    def encode(self) -> bytes:
        """A JSON object."""
        given = {"revision": self.revision, "catalogue": self.catalogue, "arms": dict(self.arms)}
        items = [item.fields() for item in self.items]
        said = {name: value for name, value in given.items() if value}
        return to_json({self.origin: self.origin_id, "items": items, **said, **self.notes.fields()})


def to_json(value: object) -> bytes:
    """Compact JSON in UTF-8, on one line for every reader: line separators of Unicode are escaped as well."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).translate(_SEPARATORS).encode()


_SEPARATORS = {ord(each): f"\\u{ord(each):04x}" for each in "\x85\u2028\u2029"}


Kind = Literal["impression", "event"]
KINDS: tuple[Kind, ...] = ("impression", "event")


@dataclass(frozen=True)
class Record:
    """One impression or event as it is kept; `at` is in seconds since the epoch, `data` a JSON object."""

    at: float
    data: bytes


MEASURES = ("click", "like", "purchase")
"""What experiments count beside the items that were shown."""


@dataclass(frozen=True)
class Count:
    """What is new of one user in one arm: items that were shown, and events by measure."""

    shown: int = 0
    click: int = 0
    like: int = 0
    purchase: int = 0


@dataclass(frozen=True)
class ArmSums:
    """Sums over the users of an arm, where user i was shown n_i items and x_i events followed: users, Σ n, Σ n², and
    for each measure (Σ x, Σ x², Σ x n)."""

    users: int = 0
    shown: int = 0
    shown_squared: int = 0
    measures: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)


SUMMED = (
    "users",
    "shown",
    "shown_squared",
    *(f"{measure} {what}" for measure in MEASURES for what in ("hits", "hits_squared", "cross")),
)
"""The sums that are kept of an arm, in the order that `arm_sums` takes."""


def arm_sums(values: Sequence[int]) -> ArmSums:
    """The sums of an arm from the values of SUMMED."""
    users, shown, shown_squared, *rest = values
    measures = {measure: (rest[3 * at], rest[3 * at + 1], rest[3 * at + 2]) for at, measure in enumerate(MEASURES)}
    return ArmSums(users, shown, shown_squared, measures)


class ActivityLog(ABC):
    """What users were shown and did. Every method may raise StorageUnavailable.

    The log of feedback adds events itself, in the step that accepts them; see FeedbackEvent.attribution.
    """

    @abstractmethod
    async def add(self, user: UserKey, kind: Kind, data: bytes) -> None:
        """Keeps a record, a JSON object. Nothing is kept for a deleted user."""

    @abstractmethod
    async def merge(self, user: UserKey, kind: Kind, records: Sequence[Record]) -> None:
        """Adds another user's records, each at its own time, within the same bounds: the newest of both stay. A record
        that is there already is not added again. Nothing is kept for a deleted user."""

    @abstractmethod
    async def kept(self, user: UserKey, kind: Kind) -> Sequence[Record]:
        """The kept records whose time to live has not passed, the oldest first."""

    @abstractmethod
    async def count(self, user: UserKey, counts: Mapping[str, Count]) -> None:
        """Adds to what is counted of a user, by arm ("EXPERIMENT@SALT/ARM"). Nothing is counted for a deleted user."""

    @abstractmethod
    async def sums(self, tenant: str, arms: Sequence[str]) -> Sequence[ArmSums]:
        """The sums of each arm over a tenant's users, "" for those of all tenants."""

    @abstractmethod
    async def close(self) -> None:
        """Closes connections."""
