"""Reads a history of feedback: line by line, checked as the gateway checks, and gathered by user on disk.

A trainer that sees all of a user's events at once makes one revision of them. Files are mostly in the order of time, so
the lines are first distributed over temporary files by user. Of these only one at a time is held in memory.
"""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import IO, Any

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
"""Refused lines whose reasons are remembered; the others are counted."""


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

    def refuse(self, number: int, why: str) -> None:
        """Counts a line that is no event, or that the service does not take."""
        self.refused += 1
        if len(self.reasons) < REPORTED:
            self.reasons[number] = why


@dataclass(frozen=True)
class Line:
    """One line of a history, and its number from 1."""

    number: int
    text: bytes


@dataclass(frozen=True)
class History:
    """Reads the events of one file. Pictures are files, named from `folder`."""

    folder: Path
    limits: GatewaySettings
    tenant: str = ""

    def event(self, line: Line) -> FeedbackEvent:
        """The event of a line. Raises ValueError with what is wrong; OSError for a picture that cannot be read."""
        given = parsed(line.text)
        if image := given.pop("image", ""):
            given["image"] = self._image(image)
        given.setdefault("event_id", _event_id(line))
        user, tenant = given.pop("user", ""), given.pop("tenant", self.tenant)
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
        path, most = self.folder / name, self.limits.max_image_bytes
        if (size := path.stat().st_size) > most:
            raise ValueError(f"image: {name} has {size} bytes, and a picture may have {most}")
        return path.read_bytes()


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
    grade = given.get("grade", 0.0)
    if isinstance(grade, bool) or not isinstance(grade, int | float) or not math.isfinite(grade):
        raise ValueError("grade: must be a number")
    _check_notes(given)
    if "occurred_at" in given:
        given["occurred_at"] = _time(given["occurred_at"])
    return given


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


def _event_id(line: Line) -> str:
    """An id of the line's number and content: the same file gives the same ids, and equal lines different ones."""
    return f"import-{line.number}-{hashlib.blake2b(line.text.strip(), digest_size=12).hexdigest()}"


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


def parquet_lines(file: Path) -> Iterator[Line]:
    """The rows of a Parquet file, each as its JSON line. Raises Failure without pyarrow, or for a file that is none."""
    try:
        pyarrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ModuleNotFoundError as missing:
        raise Failure("Parquet needs pyarrow", "pip install pyarrow, or convert the file to JSONL") from missing
    number = 0
    try:
        for rows in parquet.ParquetFile(file).iter_batches(1_000):
            for row in rows.to_pylist():
                number += 1
                yield Line(number, json.dumps(row, default=_plain, ensure_ascii=False).encode())
    except (OSError, pyarrow.ArrowException) as error:
        raise Failure(f"{file} cannot be read: {error}") from error


def _plain(value: object) -> object:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def lines_in(file: Path) -> Callable[[], Iterator[Line]]:
    """What reads the lines of a file, from the beginning each time."""
    read = parquet_lines if file.suffix.lower() in (".parquet", ".pq") else lines_of
    return lambda: read(file)


@contextmanager
def by_user(lines: Iterable[Line], history: History, size: int, tally: Tally) -> Iterator[list[Path]]:
    """Distributes the lines over temporary files, so that all of one user's lie in one of them, in order.

    Counts what each says, and refuses what is no event. `size` is about that of the file, in bytes.
    """
    count = min(MOST_PARTS, size // PART_BYTES + 1)
    users: list[set[bytes]] = [set() for _ in range(count)]
    with tempfile.TemporaryDirectory(prefix="papa-import-") as folder:
        paths = [Path(folder) / f"{number}" for number in range(count)]
        parts = [path.open("wb") for path in paths]
        try:
            for line in lines:
                tally.lines += 1
                try:
                    event = history.event(line)
                except (ValueError, TypeError, OSError) as error:
                    tally.refuse(line.number, str(error))
                    continue
                key = user_key(event)
                place = int.from_bytes(key[:4]) % count
                users[place].add(key)
                tally.types[event.type or ("cancels" if event.cancels else "grade")] += 1
                parts[place].write(b"%s %d %s\n" % (key.hex().encode(), line.number, line.text))
        finally:
            for part in parts:
                part.close()
        tally.users = sum(map(len, users))
        yield paths


def user_key(event: FeedbackEvent) -> bytes:
    """A digest of the event's user."""
    user = event.user if isinstance(event.user, User) else User(event.user)
    return hashlib.blake2b(f"{user.tenant}\0{user.user}".encode(), digest_size=12).digest()


def users_in(part: Path) -> list[list[Line]]:
    """The lines of each user of a temporary file, in order."""
    found: dict[bytes, list[Line]] = {}
    with part.open("rb") as lines:
        for each in lines:
            key, number, text = each.rstrip(b"\n").split(b" ", 2)
            found.setdefault(key, []).append(Line(int(number), text))
    return list(found.values())
