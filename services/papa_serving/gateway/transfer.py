"""Moves what belongs to a user: everything out of the service, an adapter into it, a guest's labels to a member.

A guest and a member lie in different partitions, so that no script can merge them at once. Every step may be repeated:
a label arrives under an event id that is made of the merge's name and the label's own sequence, the member's state has
the last sequence that arrived, and the guest is deleted only if nothing has changed since the labels were read. The
guest's state has what a later attempt could not see in the labels: which were taken back since the merge began, and
which had another sequence then. Whoever calls again after a crash finds the rest to do.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from papa_serving.contracts.attribution import KINDS, ActivityLog, Kind, Record, to_json
from papa_serving.contracts.errors import (
    EventIdReused,
    EventNotFound,
    LineageConflict,
    RevisionDamaged,
    RevisionNotFound,
    StorageUnavailable,
    UserDeleted,
)
from papa_serving.contracts.feedback import MERGED, FeedbackEvent, FeedbackLog, LoggedEvent
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.revisions import (
    BASE,
    DeletionReceipt,
    MergeClaim,
    Revision,
    RevisionStore,
    UserDirectory,
    UserState,
    revision_name,
)
from papa_serving.contracts.samples import pack_sample
from papa_serving.gateway.backends import Backends
from papa_serving.gateway.engine_client import EngineClient
from papa_serving.logs import request_id
from papa_serving.stubs.engine.v1 import engine_pb2

log = logging.getLogger(__name__)

MANIFEST, STATE, ACTIVITY = "manifest.json", "state.safetensors", "activity.jsonl"
CHUNK_BYTES = 2**20
PAGE, EVENTS_PAGE = 100, 200
ATTEMPTS = 5
PAUSE = 0.2
_DTYPES = {"U8": np.uint8, "F16": np.float16, "F32": np.float32, "I64": np.int64}

File = tuple[str, bytes]


class Exporter:
    """Reads everything that is kept of a user, piece by piece, and checks each file before it leaves."""

    def __init__(self, users: UserDirectory, revisions: RevisionStore) -> None:
        self._users, self._revisions = users, revisions

    async def chosen(self, state: UserState, revision: str) -> Revision | None:
        """Returns the named revision or the current one; None where that is the base. Raises RevisionNotFound."""
        if revision in ("", BASE):
            return None if revision else state.current
        return await self._users.revision(state.user, revision)

    async def lineage(self, user: UserKey) -> AsyncIterator[Revision]:
        """Yields all revisions of the user, newest first."""
        before, more = "", True
        while more:
            page = await self._users.lineage(user, PAGE, before)
            for revision in page:
                yield revision
            more = len(page) == PAGE
            before = page[-1].name if page else ""

    async def files(self, user: UserKey, revision: Revision) -> AsyncIterator[File]:
        """Yields the revision's files. Raises RevisionDamaged instead of yielding a file that is not the committed
        one."""
        manifest = await self._manifest(user, revision)
        yield MANIFEST, manifest
        for name, expected in _named(manifest, revision).items():
            data = await self._get(user, revision, name)
            if await asyncio.to_thread(sha256, data) != expected:
                raise RevisionDamaged(f"{name} of revision {revision.name} is not the one that was committed")
            yield name, data

    async def history(self, user: UserKey) -> AsyncIterator[File]:
        """Yields the manifest of every revision whose manifest is undamaged. The lineage's record covers the others."""
        async for revision in self.lineage(user):
            try:
                yield f"history/{revision.name}.json", await self._manifest(user, revision)
            except RevisionDamaged:
                continue

    async def _manifest(self, user: UserKey, revision: Revision) -> bytes:
        data = await self._get(user, revision, MANIFEST)
        if sha256(data) != revision.sha256:
            raise RevisionDamaged(f"the manifest of revision {revision.name} is not the one that was committed")
        return data

    async def _get(self, user: UserKey, revision: Revision, name: str) -> bytes:
        try:
            return await self._revisions.get(user, revision.name, name)
        except RevisionNotFound as error:
            raise RevisionDamaged(f"revision {revision.name} lacks {name}") from error


async def activity_of(activity: ActivityLog, user: UserKey) -> bytes:
    """What the user was shown and did, one JSON object a line; b"" where nothing is kept."""
    lines = [
        to_json({"kind": kind, "at": record.at, **_with_short_grade(json.loads(record.data))})
        for kind in KINDS
        for record in await activity.kept(user, kind)
    ]
    return b"".join(line + b"\n" for line in lines)


def _with_short_grade(record: dict[str, Any]) -> dict[str, Any]:
    """The grade as the shortest text that names the same float32, which it is: 0.2, not 0.20000000298023224."""
    return record | {"grade": float(str(np.float32(record["grade"])))} if "grade" in record else record


class Adopter:
    """Brings an adapter from elsewhere into a user's lineage.

    It commits as a trainer does: the files first, then one script, which refuses a changed pointer or a deleted user.
    """

    def __init__(
        self, engine: EngineClient, users: UserDirectory, revisions: RevisionStore, feedback: FeedbackLog
    ) -> None:
        self._engine, self._users, self._revisions, self._feedback = engine, users, revisions, feedback

    async def adopt(self, user: UserKey, backbone_hash: str, files: Mapping[str, bytes]) -> Revision:
        """Has the engine check and pack `files`, commits them and returns the new revision.

        Raises InvalidRequest, UserDeleted, GeneratorUnavailable, StorageUnavailable; LineageConflict when the user's
        own updates win ATTEMPTS times.
        """
        created_at = time.time()
        for attempt in range(1, ATTEMPTS + 1):
            state = await self._users.get(user)
            parent = state.current.name if state.current is not None else ""
            packed = await self._engine.pack_adapter(
                engine_pb2.PackAdapterRequest(
                    request_id=request_id.get(),
                    backbone=backbone_hash,
                    parent=parent,
                    created_at=created_at,
                    files=files,
                )
            )
            revision = _record(state, parent, packed, created_at)
            try:
                await self._revisions.put(user, revision.name, dict(packed.files))
                await self._commit(user, revision)
            except LineageConflict:
                if attempt == ATTEMPTS:
                    raise
                log.info("an import lost its parent and is done again")
            except UserDeleted:
                await self._revisions.delete_user(user)
                raise
            else:
                break
        return revision

    async def _commit(self, user: UserKey, revision: Revision) -> None:
        """Repeats a commit whose outcome is unknown; the script answers the same for the same revision."""
        for _ in range(ATTEMPTS - 1):
            try:
                await self._feedback.adopt(user, revision)
            except StorageUnavailable:
                await asyncio.sleep(PAUSE)
            else:
                return
        await self._feedback.adopt(user, revision)


@dataclass(frozen=True)
class Label:
    """One label of the guest: a packed sample and its grade; `sequence` is its number, 0 where it is not known."""

    sequence: int
    sample: bytes
    grade: float


class Merger:
    """Merges users of the same backbone and tenant."""

    def __init__(self, backends: Backends) -> None:
        self._log, self._users, self._items = backends.log, backends.users, backends.items
        self._activity = backends.activity
        self._revisions = backends.revisions
        self._exporter = Exporter(backends.users, backends.revisions)

    async def merge(self, guest: UserKey, into: UserKey) -> DeletionReceipt:
        """Returns the receipt of the guest's deletion, the same one when it is called again.

        Raises UserDeleted, what a refused label was refused with, and LineageConflict where the guest changes all the
        time or is being merged into somebody else.
        """
        await self._users.get(into)
        for _ in range(ATTEMPTS):
            claim = await self._users.begin_merge(guest, into)
            receipt = claim.receipt
            if receipt is None:
                if shown := await self._items.of_user(guest):
                    await self._items.put(into, shown)
                labels, ended = await self._labels(guest, claim)
                if (await self._users.begin_merge(guest, into)).seen != claim.seen:
                    continue  # a label that moved while they were read may be missing among them
                await self._append(labels, ended, into, claim.merge)
                activity = {kind: await self._activity.kept(guest, kind) for kind in KINDS}
                receipt = await self._users.delete(guest, claim)
                if receipt is not None:
                    await self._hand_over(activity, into)
            elif receipt.merged_into != into.digest:
                raise UserDeleted("the user to merge was deleted", field="from_user")
            if receipt is not None:
                await self._revisions.delete_user(guest)
                return receipt
        raise LineageConflict("the user to merge changes all the time: try again", retry_after=1.0)

    async def _hand_over(self, activity: Mapping[Kind, Sequence[Record]], into: UserKey) -> None:
        """Adds the guest's activity to the member's, by time, after the deletion, so that what came meanwhile is there.
        What a failure leaves out stays out: a merge must not fail for it when the guest is gone."""
        try:
            for kind, records in activity.items():
                await self._activity.merge(into, kind, records)
        except StorageUnavailable as error:
            log.warning("a merge could not keep what the guest was shown and did: %s", error)

    async def _labels(self, guest: UserKey, claim: MergeClaim) -> tuple[list[Label], set[int]]:
        """The guest's labels, and the sequences of those that were taken back; each as it was when the merge began."""
        waiting = [event async for event in self._waiting(guest)]
        ended = {event.cancels for event in waiting if event.cancels} | claim.ended
        labels = [Label(each.sequence, each.sample, each.grade) for each in waiting if not each.cancels]
        labels += [label for label in await self._applied(guest) if label.sequence not in ended or not label.sequence]

        def first(sequence: int) -> int:
            return claim.renumbered.get(sequence, sequence)

        labels = [replace(label, sequence=first(label.sequence)) for label in labels]
        return sorted(labels, key=lambda label: label.sequence), set(map(first, ended))

    async def _append(self, labels: Sequence[Label], ended: set[int], into: UserKey, merge: str) -> None:
        # First what was taken back since an earlier attempt: the labels may be so many that its id is forgotten.
        events = [
            FeedbackEvent(f"{MERGED}{merge}/end-{number}", into, 0.0, cancels=f"{MERGED}{merge}/{number}")
            for number in sorted(ended)
        ]
        events += [
            FeedbackEvent(_event_id(merge, each), into, each.grade, image=each.sample)
            for each in {_event_id(merge, each): each for each in labels}.values()
        ]
        for first in range(0, len(events), EVENTS_PAGE):
            for result in await self._log.append(events[first : first + EVENTS_PAGE]):
                # Reused: it came before, as a picture, and a latent backbone has made another sample of it since.
                # Not found: no earlier attempt brought what was taken back.
                if result.error is not None and not isinstance(result.error, EventIdReused | EventNotFound):
                    raise result.error

    async def _waiting(self, guest: UserKey) -> AsyncIterator[LoggedEvent]:
        """The guest's unapplied events, and the dead letters: accepted is accepted."""
        last = 0
        while page := await self._log.pending(guest, last, EVENTS_PAGE):
            for event in page:
                yield event
            last = page[-1].sequence
        partition, after = guest.partition(self._log.partitions), ""
        while letters := await self._log.dead_letters(partition, EVENTS_PAGE, after):
            for letter in letters:
                if letter.event.user == guest:
                    yield letter.event
            after = letters[-1].letter_id

    async def _applied(self, guest: UserKey) -> list[Label]:
        """The labels in the replay of the guest's current revision, or of its newest undamaged ancestor."""
        revision: Revision | None = (await self._users.get(guest)).current
        while revision is not None:
            try:
                files = {name: data async for name, data in self._exporter.files(guest, revision)}
                return await asyncio.to_thread(labels_of, files[STATE]) if STATE in files else []
            except (RevisionDamaged, RevisionNotFound):
                revision = await self._users.parent(guest, revision)
        return []


def labels_of(state: bytes) -> list[Label]:
    """The replay of a revision's state file (papa.revision_files writes it), oldest first."""
    length = int.from_bytes(state[:8], "little")
    header = json.loads(state[8 : 8 + length])

    def tensor(name: str) -> NDArray[np.generic]:
        begin, end = (8 + length + offset for offset in header[name]["data_offsets"])
        return np.frombuffer(state[begin:end], _DTYPES[header[name]["dtype"]]).reshape(header[name]["shape"])

    samples, grades = tensor("samples"), tensor("grades").tolist()
    prompts = json.loads(tensor("prompts").tobytes()) if "prompts" in header else [""] * len(grades)
    numbers = tensor("sequences").tolist() if "sequences" in header else [0] * len(grades)
    return [
        Label(int(number), pack_sample(sample, prompt), float(grade))
        for number, sample, grade, prompt in zip(numbers, samples, grades, prompts, strict=True)
    ]


def _event_id(merge: str, label: Label) -> str:
    name = str(label.sequence) if label.sequence else f"sample-{hashlib.sha256(label.sample).hexdigest()[:32]}"
    return f"{MERGED}{merge}/{name}"


def _named(manifest: bytes, revision: Revision) -> dict[str, str]:
    """File names and sha256 digests that a manifest lists. Raises RevisionDamaged."""
    try:
        return {name: entry["sha256"] for name, entry in json.loads(manifest)["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RevisionDamaged(f"the manifest of revision {revision.name} is not one of ours") from error


def sha256(data: bytes) -> str:
    """The digest in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def pieces(data: bytes) -> list[bytes]:
    """Splits data into chunks of at most CHUNK_BYTES; empty data gives one empty chunk."""
    return [data[at : at + CHUNK_BYTES] for at in range(0, len(data) or 1, CHUNK_BYTES)]


def _record(state: UserState, parent: str, packed: engine_pb2.PackedAdapter, created_at: float) -> Revision:
    return Revision(
        name=revision_name(state.revisions + 1, packed.sha256),
        parent=parent,
        created_at=created_at,
        sha256=packed.sha256,
        events_applied=0,
        events_total=0 if state.current is None else state.current.events_total,
        remembered=packed.remembered,
    )
