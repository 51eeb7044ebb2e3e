"""Reads a history of feedback: line by line, checked as the gateway checks, and gathered by user on disk.

A trainer that sees all of a user's events at once makes one revision of them. Files are mostly in the order of time, so
the lines are first distributed over temporary files by user. Of these only one at a time is held in memory.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from papa_serving.cli.feedback_parquet import parquet_size, parquet_texts
from papa_serving.client import FeedbackEvent, InvalidRequest, User
from papa_serving.client.wire import event_message
from papa_serving.contracts.errors import Violation
from papa_serving.gateway.conversion.validation import check_event
from papa_serving.local.failure import Failure
from papa_serving.settings import GatewaySettings

TEXTS = (
    "user", "tenant", "event_id", "item_id", "image", "catalogue_item", "catalogue", "cancels", "type", "generation_id",
    "recommendation_id", "prompt",
)  # fmt: skip
FIELDS = (*TEXTS, "grade", "occurred_at", "metadata", "tags")
"""What a line may say."""
PART_BYTES = 4 * 2**20
MOST_PARTS = 256
"""Temporary files, each of about PART_BYTES until there are so many."""
LONGEST_LINE = 2**20
REPORTED = 1_000
"""Refused lines whose reasons are remembered, and users who are named; the others are counted."""
UNREADABLE = (ValueError, TypeError, OverflowError, OSError)
"""What reading a line may raise: each is the fault of that line alone."""
_OF_THE_USER = ("user", "tenant", "event_id")
"""Fields that are no part of what a line says about its user."""


@dataclass
class Tally:
    """What a history holds, and what became of it."""

    lines: int = 0
    users: int = 0
    types: Counter[str] = field(default_factory=Counter)
    accepted: int = 0
    duplicates: int = 0
    refused: int = 0
    reasons: dict[int, str] = field(default_factory=dict)
    over_quota: list[str] = field(default_factory=list)

    def refuse(self, number: int, why: str) -> None:
        """Counts a line that is no event, or that the service does not take."""
        self.refused += 1
        if len(self.reasons) < REPORTED:
            self.reasons[number] = why


@dataclass(frozen=True)
class Line:
    """One line of a history, its number from 1, and which of its user's lines of this content it is, from 1."""

    number: int
    text: bytes
    ordinal: int = 1


@dataclass(frozen=True)
class History:
    """Reads the events of one file. Pictures are files in `folder`.

    `tenant` is meant by lines that name none. `name` keeps this import apart from others whose lines are equal.
    """

    folder: Path
    limits: GatewaySettings
    tenant: str = ""
    name: str = ""

    def event(self, line: Line) -> FeedbackEvent:
        """The event of a line. Raises ValueError with what is wrong; OSError for a picture that cannot be read."""
        given = parsed(line.text)
        given.setdefault("event_id", self._event_id(given, line.ordinal))
        if image := given.pop("image", ""):
            given["image"] = self._image(image)
        user, tenant = given.pop("user", ""), given.pop("tenant", "") or self.tenant
        event = FeedbackEvent(User(user, tenant), **given)
        violations: list[Violation] = []
        try:
            check_event(event_message(event, self.tenant), "", self.limits, violations)
        except InvalidRequest as refused:
            violations = list(refused.violations)
        if violations:
            raise ValueError("; ".join(f"{each.field}: {each.description}" for each in violations))
        return event

    def _image(self, name: str) -> bytes:
        folder, most = os.path.realpath(self.folder), self.limits.max_image_bytes
        path = os.path.realpath(Path(folder) / name)
        if not Path(path).is_relative_to(folder):
            raise ValueError(f"image: {name} is not in the folder of the history")
        # Without blocking, which a pipe would do; what it is is asked of what was opened.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW), "rb") as file:
            if not stat.S_ISREG((of := os.fstat(file.fileno())).st_mode):
                raise ValueError(f"image: {name} is no regular file")
            if of.st_size > most:
                raise ValueError(f"image: {name} has {of.st_size} bytes, and a picture may have {most}")
            return file.read(most)

    def _event_id(self, given: dict[str, Any], ordinal: int) -> str:
        """An id of what the line says, and of which of the user's equal lines it is. So a line keeps its id when others
        are added, and equal lines of one file have different ones."""
        said = {name: value for name, value in given.items() if name not in _OF_THE_USER}
        text = json.dumps([self.name, said], sort_keys=True, default=str).encode()
        return f"import-{hashlib.blake2b(text, digest_size=12).hexdigest()}-{ordinal}"


def parsed(text: bytes) -> dict[str, Any]:
    """The fields of a line, as FeedbackEvent takes them but for user, tenant and image. Raises ValueError."""
    if len(text) > LONGEST_LINE:
        raise ValueError(f"has {len(text)} bytes, and a line may have {LONGEST_LINE}")
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is no JSON: {error}") from error
    if not isinstance(given, dict):
        raise ValueError("is no JSON object")
    given = {name: value for name, value in given.items() if value is not None}
    if strange := sorted(set(given) - set(FIELDS)):
        raise ValueError(f"there is no field {', '.join(strange)}; there are {', '.join(FIELDS)}")
    if wrong := [name for name in TEXTS if not isinstance(given.get(name, ""), str)]:
        raise ValueError(f"{wrong[0]}: must be a text")
    if "grade" in given:
        given["grade"] = _grade(given["grade"])
    _check_notes(given)
    if "occurred_at" in given:
        given["occurred_at"] = _time(given["occurred_at"])
    return given


def _grade(value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            if math.isfinite(grade := float(value)):
                return grade
        except OverflowError as error:  # a whole number of hundreds of digits
            raise ValueError("grade: must be in [-1, 1]") from error
    raise ValueError("grade: must be a number")


def _check_notes(given: dict[str, Any]) -> None:
    metadata, tags = given.get("metadata", {}), given.get("tags", [])
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("metadata: must be an object of texts")
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise ValueError("tags: must be a list of texts")


def _time(value: object) -> datetime:
    """RFC 3339, in UTC where it names no zone, or seconds since the epoch."""
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return datetime.fromtimestamp(value, UTC)
        if isinstance(value, str):
            time = datetime.fromisoformat(value)
            return time if time.tzinfo else time.replace(tzinfo=UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise ValueError(f"occurred_at: {error}") from error
    raise ValueError("occurred_at: must be a time such as 2026-11-27T08:00:00Z, or seconds since 1970")


def lines_of(file: Path) -> Iterator[Line]:
    """The lines of a JSONL file that are not empty. Raises Failure."""
    try:
        with file.open("rb") as source:
            for number, text in enumerate(_bounded(source), 1):
                if text.strip():
                    yield Line(number, text.rstrip(b"\r\n"))
    except OSError as error:
        raise Failure(f"{file} cannot be read: {error.strerror}") from error


def _bounded(source: IO[bytes]) -> Iterator[bytes]:
    """Lines, of which overlong ones are cut just beyond what is taken, so that they are refused and take no memory."""
    while line := source.readline(LONGEST_LINE + 2):
        rest = line
        while not rest.endswith(b"\n") and len(rest) > LONGEST_LINE and (rest := source.readline(LONGEST_LINE + 2)):
            continue
        yield line


def lines_in(file: Path) -> tuple[Iterator[Line], int]:
    """The lines of a file of either kind, and about how many bytes they have. Raises Failure, also later."""
    if file.suffix.lower() not in (".parquet", ".pq"):
        return lines_of(file), file.stat().st_size
    size = parquet_size(file)
    return (Line(number, text) for number, text in enumerate(parquet_texts(file), 1)), size


@contextmanager
def by_user(lines: Iterable[Line], history: History, size: int, tally: Tally, most: int) -> Iterator[list[Path]]:
    """Distributes the lines over temporary files, so that all of one user's lie in one of them, in order.

    Counts what each says, and refuses what is no event. `size` is about that of the file, in bytes; of users with more
    than `most` lines the names are kept, unless that is 0.

    Users are told apart by their ids alone. Whether a line without a tenant is about the same user as one with it, only
    the service knows, and no two calls about one user may be under way.
    """
    count = min(MOST_PARTS, size // PART_BYTES + 1)
    users: Counter[bytes] = Counter()
    with tempfile.TemporaryDirectory(prefix="papa-import-") as folder:
        paths = [Path(folder) / f"{number}" for number in range(count)]
        parts = [path.open("wb") for path in paths]
        try:
            for line in lines:
                tally.lines += 1
                try:
                    event = history.event(line)
                except UNREADABLE as error:
                    tally.refuse(line.number, str(error))
                    continue
                user = user_of(event)
                key, whole = _key(user.user), _key(user.tenant, user.user)
                users[whole] += 1
                if most and users[whole] == most + 1 and len(tally.over_quota) < REPORTED:
                    tally.over_quota.append(user.user)
                tally.types[event.type or ("cancels" if event.cancels else "grade")] += 1
                twin = _key(user.tenant, user.user, event.event_id)
                parts[int(key[:8], 16) % count].write(b"%s %s %d %s\n" % (key, twin, line.number, line.text))
        finally:
            for part in parts:
                part.close()
        tally.users = len(users)
        yield paths


def user_of(event: FeedbackEvent) -> User:
    """The event's user, and tenant as far as it is known."""
    return event.user if isinstance(event.user, User) else User(event.user)


def _key(*names: str) -> bytes:
    return hashlib.blake2b("\0".join(names).encode(), digest_size=12).hexdigest().encode()


def users_in(part: Path) -> list[list[Line]]:
    """The lines of each user of a temporary file, in order, with their ordinals among equal ones."""
    found: dict[bytes, list[Line]] = {}
    twins: Counter[bytes] = Counter()
    with part.open("rb") as lines:
        for each in lines:
            key, twin, number, text = each.rstrip(b"\n").split(b" ", 3)
            twins[twin] += 1
            found.setdefault(key, []).append(Line(int(number), text, twins[twin]))
    return list(found.values())
