"""The input of the checker: what callers saw, and the final state. Times are monotonic seconds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

HELD_BACK = 2.0
OPEN = float("inf")
"""The end of a call whose answer never came."""


@dataclass(frozen=True)
class Submitted:
    """One event as its caller saw it, over all attempts.

    `refused`: no attempt was accepted, for certain. `unknown`: an answer was lost, or nobody answered.
    """

    user: str
    event_id: str
    invoked: float
    ended: float
    outcome: Literal["acknowledged", "refused", "unknown"]
    sequence: int = 0
    reason: str = ""
    grade: float = 1.0


@dataclass(frozen=True)
class Moved:
    """A rollback, reset or deletion. Unless `known`, it may or may not have happened, also long after it ended."""

    user: str
    kind: Literal["rollback", "reset", "delete"]
    target: str
    invoked: float
    ended: float
    known: bool


@dataclass(frozen=True)
class Seen:
    """The revision ("" = base) that a read of the user's state, or a generation, answered with."""

    user: str
    invoked: float
    ended: float
    revision: str


@dataclass(frozen=True)
class History:
    """Everything that callers did and saw. `held_back`: when Redis was killed while it held writes back, as it may with
    appendfsync everysec for HELD_BACK seconds while the disk still synchronises what was before."""

    submitted: tuple[Submitted, ...] = ()
    moved: tuple[Moved, ...] = ()
    seen: tuple[Seen, ...] = ()
    held_back: tuple[float, ...] = ()


@dataclass(frozen=True)
class Applied:
    """One revision of a lineage: its record, and what its files say. `whole`: the files are there, and the manifest's
    sha256 is the record's. `learned`: all events behind the weights, None where the files do not tell."""

    revision: str
    parent: str
    first_sequence: int
    last_sequence: int
    whole: bool
    manifest_parent: str
    events: tuple[str, ...]
    learned: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Left:
    """The final state of one user. `pending` and `letters` are event ids, `files` the folders of the revision store."""

    deleted: bool = False
    current: str = ""
    lineage: tuple[Applied, ...] = ()
    pending: tuple[str, ...] = ()
    letters: tuple[str, ...] = ()
    files: frozenset[str] = frozenset()
    accepted: int = 0
    counted_pending: int = 0
    counted_letters: int = 0


@dataclass(frozen=True)
class Final:
    """The state of Redis and of the revision store, once all work was done. `settled`: it was done in time."""

    users: dict[str, Left] = field(default_factory=dict)
    settled: bool = True
