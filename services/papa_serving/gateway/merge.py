"""A guest becomes a member: the guest's labels become the member's, then the guest is deleted.

The two users lie in different partitions, so that no script can do all of it at once. Every step may be repeated: a
label arrives under an event id that is made of the guest and the label's own number, and the guest is deleted only if
nothing has changed since the labels were read. Whoever calls again after a crash finds the rest to do.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from papa_serving.contracts.errors import (
    EventIdReused,
    EventNotFound,
    LineageConflict,
    RevisionDamaged,
    RevisionNotFound,
    UserDeleted,
)
from papa_serving.contracts.feedback import FeedbackEvent, LoggedEvent
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.revisions import DeletionReceipt, Revision
from papa_serving.contracts.samples import pack_sample
from papa_serving.gateway.backends import Backends
from papa_serving.gateway.transfer import Exporter

STATE = "state.safetensors"
ATTEMPTS = 5
PAGE = 200
_DTYPES = {"U8": np.uint8, "F16": np.float16, "F32": np.float32, "I64": np.int64}


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
                await self._append(guest, into)
                receipt = await self._users.delete(guest, claim)
            elif receipt.merged_into != into.digest:
                raise UserDeleted("the user to merge was deleted", field="from_user")
            if receipt is not None:
                await self._revisions.delete_user(guest)
                return receipt
        raise LineageConflict("the user to merge changes all the time: try again", retry_after=1.0)

    async def _append(self, guest: UserKey, into: UserKey) -> None:
        waiting = [event async for event in self._waiting(guest)]
        ended = {event.cancels for event in waiting if event.cancels}
        labels = [Label(each.sequence, each.sample, each.grade) for each in waiting if not each.cancels]
        labels += [label for label in await self._applied(guest) if label.sequence not in ended or not label.sequence]
        labels.sort(key=lambda label: label.sequence)
        events = [
            FeedbackEvent(_event_id(guest, each), into, each.grade, image=each.sample)
            for each in {_event_id(guest, each): each for each in labels}.values()
        ]
        events += [
            FeedbackEvent(f"{_prefix(guest)}end-{number}", into, 0.0, cancels=f"{_prefix(guest)}{number}")
            for number in sorted(ended)
        ]
        for first in range(0, len(events), PAGE):
            for result in await self._log.append(events[first : first + PAGE]):
                # Reused: it came before, as a picture, and a latent backbone has made another sample of it since.
                if result.error is not None and not isinstance(result.error, EventIdReused | EventNotFound):
                    raise result.error

    async def _waiting(self, guest: UserKey) -> AsyncIterator[LoggedEvent]:
        """The guest's unapplied events, and the dead letters: accepted is accepted."""
        last = 0
        while page := await self._log.pending(guest, last, PAGE):
            for event in page:
                yield event
            last = page[-1].sequence
        partition, after = guest.partition(self._log.partitions), ""
        while letters := await self._log.dead_letters(partition, PAGE, after):
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


def _event_id(guest: UserKey, label: Label) -> str:
    name = str(label.sequence) if label.sequence else hashlib.sha256(label.sample).hexdigest()[:32]
    return f"{_prefix(guest)}{name}"


def _prefix(guest: UserKey) -> str:
    return f"merged/{guest.digest}/"
