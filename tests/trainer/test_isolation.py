"""What one user says leaves what is learnt for others as it was, bit for bit, also in a joint update."""

from __future__ import annotations

from dataclasses import replace

from papa_serving.contracts.feedback import LoggedEvent, UserBatch
from papa_serving.contracts.identity import UserKey
from papa_serving.trainer.papa_updater import PapaUpdater
from papa_serving.trainer.updater import Trained, UserUpdate, Weights

from tests.trainer.learning import denoiser, events_of, first_update, updater

__all__ = ["denoiser", "updater"]  # fixtures

ANN, MALLORY = UserKey("tenant", "ann"), UserKey("tenant", "mallory")


def learnt_beside(updater: PapaUpdater, events: tuple[LoggedEvent, ...]) -> tuple[Trained, Trained]:
    """What Ann and Mallory get from one update together."""
    mallory = UserUpdate(UserBatch(MALLORY, events), "", Weights())
    ann, other = updater.update([first_update(ANN), mallory], 1.0)
    assert isinstance(ann, Trained)
    assert isinstance(other, Trained)
    return ann, other


def test_flipped_labels_change_nobody_else(updater: PapaUpdater) -> None:
    told = events_of(MALLORY, 9)
    flipped = tuple(replace(event, grade=-event.grade) for event in told)
    ann, mallory = learnt_beside(updater, told)
    again, fooled = learnt_beside(updater, flipped)
    assert again.files == ann.files
    assert fooled.files["adapter_model.safetensors"] != mallory.files["adapter_model.safetensors"]


def test_a_flood_of_labels_changes_nobody_else(updater: PapaUpdater) -> None:
    ann, _ = learnt_beside(updater, events_of(MALLORY, 5))
    again, _ = learnt_beside(updater, events_of(MALLORY, 64))
    assert again.files == ann.files
