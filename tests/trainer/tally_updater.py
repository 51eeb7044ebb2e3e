"""Learning for tests: fast, deterministic, and its weights tell which events they are made of."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence

from papa_serving.contracts.errors import RevisionDamaged
from papa_serving.contracts.feedback import LoggedEvent
from papa_serving.trainer.updater import Refused, Trained, Updater, UserUpdate, Weights, update_seed

MANIFEST = "manifest.json"


class TallyUpdater(Updater):
    """`learned` in a manifest lists all events behind the weights, oldest first; `events` those of this update.

    `during` is called in the worker thread with each joint update before it is computed, and may block, raise or kill.
    `refuse` says why an update should not pass the gate.
    """

    backbone = "tally"
    files = (MANIFEST,)

    def __init__(
        self,
        during: Callable[[Sequence[UserUpdate]], None] = lambda updates: None,
        refuse: Callable[[UserUpdate, float], str] = lambda update, step_scale: "",
    ) -> None:
        self.during = during
        self.refuse = refuse
        self.updates: list[tuple[tuple[UserUpdate, ...], float]] = []

    def flaw(self, event: LoggedEvent) -> str:
        return "no picture" if event.sample == b"flawed" else ""

    def verify(self, weights: Weights) -> None:
        if hashlib.sha256(weights.files[MANIFEST]).hexdigest() != weights.sha256:
            raise RevisionDamaged("checksum")

    def update(self, updates: Sequence[UserUpdate], step_scale: float) -> list[Trained | Refused]:
        self.updates.append((tuple(updates), step_scale))
        self.during(updates)
        return [self._one(update, step_scale) for update in updates]

    def _one(self, update: UserUpdate, step_scale: float) -> Trained | Refused:
        if reason := self.refuse(update, step_scale):
            return Refused("test", reason)
        events = [event.event_id for event in update.batch.events]
        content = {
            "parent": update.parent,
            "events": events,
            "learned": learned(update.start.files) + events,
            "seed": update_seed(self.backbone, update),
            "step_scale": step_scale,
        }
        manifest = json.dumps(content).encode()
        return Trained({MANIFEST: manifest}, hashlib.sha256(manifest).hexdigest())


def learned(files: Mapping[str, bytes]) -> list[str]:
    """The events that these weights are made of."""
    return list(json.loads(files[MANIFEST])["learned"]) if files else []
