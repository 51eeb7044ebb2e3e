"""`papa feedback import`: sends a history of feedback, each user's events in order and together."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from papa_serving.cli.configuration import load
from papa_serving.cli.connection import Address, Tenant, connect
from papa_serving.cli.feedback_history import History, Line, Tally, by_user, lines_in, users_in
from papa_serving.cli.output import AsJson, complain, print_fields, print_json, voice
from papa_serving.client import Client, FeedbackEvent, Outcome, PapaError
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
"""Refused lines of which a person is told."""

Sent = tuple[Line, FeedbackEvent]


def import_history(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="JSONL, or Parquet where pyarrow is installed.", exists=True, dir_okay=False
        ),
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the file and send nothing.")] = False,
    address: Address = "",
    tenant: Tenant = "",
    json: AsJson = False,
) -> None:
    """Import a history of feedback, each event once.

    A line is a JSON object: "user", what it is about ("item_id", "catalogue_item", "image" as a path from the file's
    folder, or "cancels"), and "grade" or "type". It may have "event_id", "tenant", "catalogue", "occurred_at",
    "generation_id", "recommendation_id", "prompt", "metadata" and "tags".

    Run it again to go on after an interruption: what the service has is a duplicate and changes nothing.
    """
    read, tally = lines_in(file), Tally()
    history = History(file.parent, load(None).gateway if dry_run else GatewaySettings(), tenant)
    with _progress(json) as progress:
        task = progress.add_task("reading", total=None)
        counted = _counted(read(), progress, task)
        with by_user(counted, history, file.stat().st_size, tally) as parts:
            if not dry_run:
                progress.update(task, description="sending", total=tally.lines - tally.refused, completed=0)
                with connect(address, tenant) as client:
                    sender = Sender(client, history, tally, lambda: progress.advance(task))
                    for part in parts:
                        sender.send(users_in(part))
    _report(tally, dry_run, json)


class Sender:
    """Sends users' events in several calls at once, and counts what becomes of each line."""

    def __init__(self, client: Client, history: History, tally: Tally, answered: Callable[[], None]) -> None:
        self._client, self._history, self._tally, self._answered = client, history, tally, answered
        self._lock = Lock()

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
            finally:
                for future in running:
                    future.cancel()

    def _run(self, job: Sequence[Line]) -> None:
        for batch in self._batches(job):
            left, until = batch, time.monotonic() + PATIENCE
            while left:
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
                time.sleep(pause)

    def _batches(self, lines: Sequence[Line]) -> Iterator[list[Sent]]:
        """Reads the events of lines and divides them into calls."""
        batch: list[Sent] = []
        size = 0
        for line in lines:
            try:
                event = self._history.event(line)
            except (ValueError, OSError) as error:  # a picture that went since it was checked
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
        waiting: set[object] = set()
        for (line, event), outcome in zip(batch, self._outcomes([event for _, event in batch]), strict=True):
            error = outcome.error
            if error is not None and error.retry_after:
                why = error if why is None or error.retry_after > (why.retry_after or 0.0) else why
                waiting.add(event.user)
            if event.user in waiting:
                again.append((line, event))
            else:
                self._count(line, error.message if error is not None else "", duplicate=outcome.duplicate)
        return again, why

    def _outcomes(self, events: Sequence[FeedbackEvent]) -> list[Outcome]:
        """One outcome per event. A call of which nothing was accepted says why of its first event alone; a stream says
        it of each."""
        try:
            return self._client.submit_feedback(events)
        except PapaError as error:
            if error.retry_after:
                return [Outcome(event.event_id, error=error) for event in events]
            if error.reason in ("CALL_FAILED", "UNAUTHENTICATED", "FORBIDDEN", "DEADLINE_EXCEEDED"):
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


def _report(tally: Tally, dry_run: bool, json: bool) -> None:
    if json:
        reasons = [{"line": number, "reason": why} for number, why in sorted(tally.reasons.items())]
        print_json({**vars(tally), "types": dict(tally.types), "reasons": reasons, "dry_run": dry_run})
    else:
        sent = {} if dry_run else {"accepted": tally.accepted, "duplicates": tally.duplicates}
        print_fields({"lines": tally.lines, "users": tally.users, **tally.types, **sent, "refused": tally.refused})
        for number, why in itertools.islice(sorted(tally.reasons.items()), SHOWN):
            complain(f"line {number}: {why}")
        if (more := tally.refused - SHOWN) > 0:
            complain(f"and {more} more; --json names up to a thousand")
    if tally.refused:
        raise typer.Exit(1)
