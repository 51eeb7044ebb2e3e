"""The interface between the trainer's loop and the learning: files and events, no tensors."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from papa_serving.contracts.feedback import LoggedEvent, UserBatch


@dataclass(frozen=True)
class Weights:
    """The start of an update: a revision's files and the sha256 of their manifest. No files mean a fresh adapter."""

    files: Mapping[str, bytes] = field(default_factory=dict)
    sha256: str = ""


@dataclass(frozen=True)
class UserUpdate:
    """One user's part of a joint update. `parent` is the revision that the pointer names, "" for none.

    `start` is the parent's weights, or those of its newest good ancestor when the parent is damaged.
    """

    batch: UserBatch
    parent: str
    start: Weights


@dataclass(frozen=True)
class Trained:
    """A revision ready to be promoted: its files and the sha256 of their manifest.

    `remembered` counts the labels in its replay.
    """

    files: Mapping[str, bytes]
    sha256: str
    loss: float = 0.0
    remembered: int = 0


@dataclass(frozen=True)
class Refused:
    """The promotion gate refused the update. `reason` is one word for metrics; `detail` is for people."""

    reason: str
    detail: str


class Updater(ABC):
    """Trains adapters. The methods block and are called from one worker thread.

    `backbone_hash` is that of the deployed backbone, `files` names the files of a revision that `update` starts from.
    """

    backbone_hash: str
    files: tuple[str, ...]

    @abstractmethod
    def flaw(self, event: LoggedEvent) -> str:
        """Why this event can never be trained on; "" when it can.

        The reason is a sample that does not decode or has the wrong shape.
        """

    @abstractmethod
    def verify(self, weights: Weights) -> None:
        """Raises RevisionDamaged unless the files match their manifest and fit this backbone."""

    @abstractmethod
    def update(self, updates: Sequence[UserUpdate], step_scale: float) -> list[Trained | Refused]:
        """Trains all users together and passes each result through the gate. Each is as if its user had trained alone.

        `step_scale` in (0, 1] multiplies the size of the training steps. The same arguments give the same result.
        """


def update_seed(backbone_hash: str, update: UserUpdate) -> int:
    """The 63-bit seed of one update. An attempt that is repeated after a crash gives the same result."""
    last = update.batch.events[-1].sequence
    text = f"{backbone_hash}|{update.batch.user.digest}|{update.parent}|{last}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
