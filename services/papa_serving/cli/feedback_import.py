"""`papa feedback import`: sends a history of feedback, each user's events in order and together."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Event, Lock
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from papa_serving.cli.configuration import load
from papa_serving.cli.connection import Address, Tenant, connect
from papa_serving.cli.feedback_history import (
    UNREADABLE,
    History,
    Line,
    Tally,
    by_user,
    lines_in,
    user_of,
    users_in,
)
from papa_serving.cli.output import AsJson, complain, print_fields, print_json, voice
from papa_serving.client import Client, FeedbackEvent, Outcome, PapaError
from papa_serving.contracts.errors import Forbidden, UserDeleted
from papa_serving.local.failure import Failure
from papa_serving.settings import GatewaySettings

BATCH = 256
"""Events of one call: as many as the service appends in one step."""
BATCH_BYTES = 2 * 2**20
"""Bytes of pictures of one call."""
LANES = 4
"""Calls under way at once. A user's calls never are."""
PATIENCE = 600.0
"""Seconds for which a full service is asked again before the import ends."""
SHOWN = 20
"""Refused lines, and users with too many of them, of which a person is told."""
ANYBODY = "papa-import"
"""A user who need not exist: the service's answer about them names the tenant of users without one."""
SURE = 4
"""The part of the quota of event ids that is sure to be remembered of events that are no label, which have half as many
as labels: the older half may go at any time."""
BROKEN = ("CALL_FAILED", "UNAUTHENTICATED", "DEADLINE_EXCEEDED")
"""Reasons that no event of a call is to blame for."""

Sent = tuple[Line, FeedbackEvent]


def import_history(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="JSONL, or Parquet where pyarrow is installed.", exists=True, dir_okay=False
        ),
    ],
    name: Annotated[
        str,
        typer.Option(
            "--import",
            metavar="NAME",
            help="Keeps lines without event_id apart from equal ones of other imports, such as yesterday's file.",
            show_default=False,
        ),
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the file and send nothing.")] = False,
    address: Address = "",
    tenant: Tenant = "",
    json: AsJson = False,
) -> None:
    """Import a history of feedback, each event once.

    A line is a JSON object: "user", what it is about ("item_id", "catalogue_item", "image" as a path from the file's
    folder, or "cancels"), and "grade" or "type". It may have "event_id", "tenant", "catalogue", "occurred_at",
    "generation_id", "recommendation_id", "prompt", "metadata" and "tags".

    Run it again, with the same --import, to go on after an interruption: what the service has is a duplicate and
    changes nothing.

    Users who are called import or send are addressed by papa feedback send USER.
    """
    tally, complete = Tally(), False
    try:
        if dry_run:
            _check(file, History(file.parent, load(None).gateway, tenant, name), tally, json)
        else:
            with connect(address, tenant) as client:
                history = History(file.parent, GatewaySettings(), tenant or _home(client), name)
                _send(client, file, history, tally, json)
        complete = True
    finally:
        _report(tally, dry_run, complete, json)
    if tally.refused:
        raise typer.Exit(1)


def _check(file: Path, history: History, tally: Tally, json: bool) -> None:
    settings = load(None)
    remembered = max(settings.store.user_event_ids, settings.feedback.backlog_limit) // SURE
    lines, size = lines_in(file)
    with _progress(json) as progress:
        task = progress.add_task("reading", total=None)
        with by_user(_counted(lines, progress, task), history, size, tally, remembered):
            pass
    _warn(tally, remembered)


def _send(client: Client, file: Path, history: History, tally: Tally, json: bool) -> None:
    remembered = client.server_info().quotas.event_ids // SURE
    lines, size = lines_in(file)
    with _progress(json) as progress:
        task = progress.add_task("reading", total=None)
        with by_user(_counted(lines, progress, task), history, size, tally, remembered) as parts:
            _warn(tally, remembered)
            progress.update(task, description="sending", total=tally.lines - tally.refused, completed=0)
            sender = Sender(client, history, tally, lambda: progress.advance(task))
            for part in parts:
                sender.send(users_in(part))


def _home(client: Client) -> str:
    """The tenant of users without one; "" where the credential is one user's and may not ask about others."""
    try:
        return client.get_user(ANYBODY).tenant
    except (Forbidden, UserDeleted):
        return ""


def _warn(tally: Tally, remembered: int) -> None:
    """Says whose import cannot be repeated."""
    for user in tally.over_quota[:SHOWN]:
        complain(
            f"user {user} has more than {remembered:,} lines, and of no user are more event ids sure to be remembered: "
            "import these lines once, because a second import, also to go on, counts forgotten ones again "
            "(store.user_event_ids)"
        )
    if (more := len(tally.over_quota) - SHOWN) > 0:
        complain(f"and {more} more users; --json names up to a thousand")


class Sender:
    """Sends users' events in several calls at once, and counts what becomes of each line."""

    def __init__(self, client: Client, history: History, tally: Tally, answered: Callable[[], None]) -> None:
        self._client, self._history, self._tally, self._answered = client, history, tally, answered
        self._lock, self._stopped = Lock(), Event()

    def send(self, users: Iterable[Sequence[Line]]) -> None:
        """Sends the events of these users. Raises PapaError for what no waiting helps against."""
        with ThreadPoolExecutor(LANES) as lanes:
            running: deque[Future[None]] = deque()
            try:
                for job in jobs(users):
                    if len(running) == 2 * LANES:
                        running.popleft().result()
                    running.append(lanes.submit(self._run, job))
                while running:
                    running.popleft().result()
            except BaseException:
                self._stopped.set()
                for future in running:
                    future.cancel()
                raise

    def _run(self, job: Sequence[Line]) -> None:
        for batch in self._batches(job):
            left, until = batch, time.monotonic() + PATIENCE
            while left:
                if self._stopped.is_set():
                    return
                before = len(left)
                left, error = self._submit(left)
                if error is None:
                    continue
                pause = error.retry_after or 0.0
                if len(left) < before:
                    until = time.monotonic() + PATIENCE
                elif time.monotonic() + pause > until:
                    what = f"the service has taken nothing for {PATIENCE:g} s: {error.message}"
                    raise Failure(what, "does a trainer run? run the import again to go on")
                self._stopped.wait(pause)

    def _batches(self, lines: Sequence[Line]) -> Iterator[list[Sent]]:
        """Reads the events of lines and divides them into calls."""
        batch: list[Sent] = []
        size = 0
        for line in lines:
            try:
                event = self._history.event(line)
            except UNREADABLE as error:  # a picture that went since it was checked
                self._count(line, str(error))
                continue
            if batch and (len(batch) == BATCH or size + len(event.image) > BATCH_BYTES):
                yield batch
                batch, size = [], 0
            batch.append((line, event))
            size += len(event.image)
        if batch:
            yield batch

    def _submit(self, batch: list[Sent]) -> tuple[list[Sent], PapaError | None]:
        """Sends a batch. Returns what is to be sent again, and the error that says why and when.

        What is sent again begins with a user's first event that was refused for want of room, so that the order stays.
        """
        again: list[Sent] = []
        why: PapaError | None = None
        waiting: set[str] = set()
        for (line, event), outcome in zip(batch, self._outcomes([event for _, event in batch]), strict=True):
            error = outcome.error
            if error is not None and error.retry_after:
                why = error if why is None or error.retry_after > (why.retry_after or 0.0) else why
                waiting.add(user_of(event).user)
            if user_of(event).user in waiting:
                again.append((line, event))
            else:
                self._count(line, error.message if error is not None else "", duplicate=outcome.duplicate)
        return again, why

    def _outcomes(self, events: Sequence[FeedbackEvent]) -> list[Outcome]:
        """One outcome per event. Raises PapaError for what no waiting helps against."""
        try:
            return self._submitted(events)
        except PapaError as error:
            if not error.retry_after:
                raise
            return [Outcome(event.event_id, error=error) for event in events]

    def _submitted(self, events: Sequence[FeedbackEvent]) -> list[Outcome]:
        """A call of which nothing was accepted says why of its first event alone; a stream says it of each. A stream is
        refused as a whole only where the credential lacks the method."""
        try:
            return self._client.submit_feedback(events)
        except PapaError as error:
            if error.retry_after or error.reason in BROKEN:
                raise
        with self._client.stream_feedback(events) as outcomes:
            return list(outcomes)

    def _count(self, line: Line, why: str, *, duplicate: bool = False) -> None:
        with self._lock:
            if why:
                self._tally.refuse(line.number, why)
            else:
                self._tally.duplicates += duplicate
                self._tally.accepted += not duplicate
            self._answered()


def jobs(users: Iterable[Sequence[Line]]) -> Iterator[list[Line]]:
    """Groups users into calls of up to BATCH events, so that no call has a part of a user who fits into one.

    A user with more events is a job of several calls.
    """
    job: list[Line] = []
    for lines in users:
        if job and len(job) + len(lines) > BATCH:
            yield job
            job = []
        job = [*job, *lines]
    if job:
        yield job


def _counted(lines: Iterable[Line], progress: Progress, task: TaskID) -> Iterator[Line]:
    for line in lines:
        progress.advance(task)
        yield line


def _progress(json: bool) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=voice(json), transient=True)


def _report(tally: Tally, dry_run: bool, complete: bool, json: bool) -> None:
    if json:
        reasons = [{"line": number, "reason": why} for number, why in sorted(tally.reasons.items())]
        told = {"types": dict(tally.types), "reasons": reasons, "dry_run": dry_run, "complete": complete}
        print_json({**vars(tally), **told})
    else:
        sent = {} if dry_run else {"accepted": tally.accepted, "duplicates": tally.duplicates}
        early = {} if complete else {"complete": "no"}
        print_fields(
            {"lines": tally.lines, "users": tally.users, **tally.types, **sent, "refused": tally.refused, **early}
        )
        for number, why in itertools.islice(sorted(tally.reasons.items()), SHOWN):
            complain(f"line {number}: {why}")
        if (more := tally.refused - SHOWN) > 0:
            complain(f"and {more} more; --json names up to a thousand")
