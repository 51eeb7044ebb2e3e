"""The update of most schedules: a small deterministic function whose weights tell which events they are made of.

Event ids that begin with "flawed" can never be trained on; those that begin with "poison" kill the process that tries.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
from collections.abc import Sequence

from papa_serving.contracts.errors import RevisionDamaged
from papa_serving.contracts.feedback import LoggedEvent
from papa_serving.trainer.updater import Refused, Trained, Updater, UserUpdate, Weights, update_seed

MANIFEST = "manifest.json"


class ChaosUpdater(Updater):
    """Files: one manifest in the fields of the real one that the checker reads, and `learned`."""

    backbone_hash = "c" * 64
    files = (MANIFEST,)

    def flaw(self, event: LoggedEvent) -> str:
        return "a flawed one" if event.event_id.startswith("flawed") else ""

    def verify(self, weights: Weights) -> None:
        if hashlib.sha256(weights.files[MANIFEST]).hexdigest() != weights.sha256:
            raise RevisionDamaged("checksum")

    def update(self, updates: Sequence[UserUpdate], step_scale: float) -> list[Trained | Refused]:
        del step_scale
        if any(event.event_id.startswith("poison") for update in updates for event in update.batch.events):
            os.kill(os.getpid(), signal.SIGKILL)
        return [self._trained(update) for update in updates]

    def _trained(self, update: UserUpdate) -> Trained:
        events = [event.event_id for event in update.batch.events]
        before = json.loads(update.start.files[MANIFEST])["learned"] if update.start.files else []
        content = {
            "backbone": self.backbone_hash,
            "parent": update.parent,
            "created_at": update.batch.events[-1].accepted_at,
            "events": events,
            "first_sequence": update.batch.events[0].sequence,
            "last_sequence": update.batch.events[-1].sequence,
            "learned": before + events,
            "seed": update_seed(self.backbone_hash, update),
        }
        manifest = json.dumps(content).encode()
        return Trained({MANIFEST: manifest}, hashlib.sha256(manifest).hexdigest())
