"""The real learning: events in, verified files out."""

import json
from dataclasses import replace

import numpy as np
import pytest
from papa_serving.contracts.errors import RevisionDamaged
from papa_serving.contracts.feedback import LoggedEvent, UserBatch
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.samples import pack_sample
from papa_serving.settings import GateSettings
from papa_serving.trainer.papa_updater import PapaUpdater
from papa_serving.trainer.updater import Refused, Trained, UserUpdate, Weights

from papa.denoiser import Denoiser
from papa.revision_files import MANIFEST_FILE, WEIGHTS_FILE, unpack
from tests.trainer.learning import CONFIG, denoiser, events_of, first_update, updater
from tests.trainer.tiny_backbone import SHAPE

__all__ = ["denoiser", "updater"]  # fixtures


def test_an_update_makes_a_revision_that_the_next_one_starts_from(
    updater: PapaUpdater, denoiser: Denoiser, user: UserKey
) -> None:
    (first,) = updater.update([first_update(user)], 1.0)
    assert isinstance(first, Trained)
    start = Weights({name: first.files[name] for name in updater.files}, first.sha256)
    updater.verify(start)
    again = UserUpdate(UserBatch(user, events_of(user, 4, start=6)), "000001-x", start)
    (second,) = updater.update([again], 1.0)
    assert isinstance(second, Trained)
    adapter = unpack(second.files, denoiser.layout, denoiser.hashes, second.sha256)
    assert len(adapter.replay) == second.remembered == 9
    assert b'"000001-x"' in second.files[MANIFEST_FILE]


def taken_back(user: UserKey, sequence: int, *labels: LoggedEvent) -> tuple[LoggedEvent, ...]:
    end = replace(events_of(user, 1, start=100)[0], grade=0.0, sample=b"", cancels=sequence)
    return (end, *labels)


def test_a_label_that_is_taken_back_is_forgotten(updater: PapaUpdater, denoiser: Denoiser, user: UserKey) -> None:
    (first,) = updater.update([first_update(user)], 1.0)
    assert isinstance(first, Trained)
    start = Weights({name: first.files[name] for name in updater.files}, first.sha256)
    known = unpack(first.files, denoiser.layout, denoiser.hashes, first.sha256).replay
    gone, *others = known.numbers()
    events = taken_back(user, gone)
    assert updater.flaw(events[0]) == ""
    (second,) = updater.update([UserUpdate(UserBatch(user, events), "000001-x", start)], 1.0)
    assert isinstance(second, Trained)
    assert unpack(second.files, denoiser.layout, denoiser.hashes, second.sha256).replay.numbers() == (*others,)


def test_when_no_label_is_left_the_adapter_is_a_fresh_one(
    updater: PapaUpdater, denoiser: Denoiser, user: UserKey
) -> None:
    (label,) = events_of(user, 1)
    (first,) = updater.update([UserUpdate(UserBatch(user, (label,)), "", Weights())], 1.0)
    assert isinstance(first, Trained)
    start = Weights({name: first.files[name] for name in updater.files}, first.sha256)
    events = taken_back(user, label.sequence)
    (second,) = updater.update([UserUpdate(UserBatch(user, events), "000001-x", start)], 1.0)
    assert isinstance(second, Trained)
    adapter = unpack(second.files, denoiser.layout, denoiser.hashes, second.sha256)
    assert len(adapter.replay) == 0
    assert all(not bool(layer.b(adapter.weights[None]).any()) for layer in denoiser.layout.layers)


def test_a_repeated_attempt_makes_the_same_revision(updater: PapaUpdater, user: UserKey) -> None:
    (once,) = updater.update([first_update(user)], 1.0)
    (twice,) = updater.update([first_update(user)], 1.0)
    assert isinstance(once, Trained) and isinstance(twice, Trained)
    assert once.files == twice.files


def test_users_together_get_what_each_would_get_alone(
    updater: PapaUpdater, denoiser: Denoiser, users: list[UserKey]
) -> None:
    updates = [first_update(user, 3 + number) for number, user in enumerate(users[:3])]
    together = updater.update(updates, 1.0)
    for update, one in zip(updates, together, strict=True):
        (alone,) = updater.update([update], 1.0)
        assert isinstance(one, Trained) and isinstance(alone, Trained)
        weights = [unpack(x.files, denoiser.layout, denoiser.hashes, x.sha256).weights for x in (one, alone)]
        # Elements whose gradient is a rounding error get a step of either sign from Adam.
        assert (weights[0] - weights[1]).abs().gt(1e-4).float().mean() < 0.01


def test_a_smaller_step_changes_less(updater: PapaUpdater, user: UserKey) -> None:
    def change(step_scale: float) -> float:
        (trained,) = updater.update([first_update(user)], step_scale)
        assert isinstance(trained, Trained)
        return float(json.loads(trained.files[MANIFEST_FILE])["stats"]["change"])

    assert change(0.25) < 0.5 * change(1.0)


def test_a_flipped_bit_is_noticed(updater: PapaUpdater, user: UserKey) -> None:
    (trained,) = updater.update([first_update(user)], 1.0)
    assert isinstance(trained, Trained)
    damaged = bytearray(trained.files[WEIGHTS_FILE])
    damaged[-1] ^= 1
    with pytest.raises(RevisionDamaged):
        updater.verify(Weights({**trained.files, WEIGHTS_FILE: bytes(damaged)}, trained.sha256))


@pytest.mark.parametrize(
    "sample",
    [b"", b"not a sample", pack_sample(np.zeros((1, 4, 4), np.uint8)), pack_sample(np.zeros(SHAPE, np.uint8))[:-1]],
)
def test_samples_that_do_not_fit_are_flawed(updater: PapaUpdater, user: UserKey, sample: bytes) -> None:
    (event,) = events_of(user, 1)
    assert updater.flaw(event) == ""
    assert updater.flaw(replace(event, sample=sample)) != ""


def test_the_gate_is_asked(denoiser: Denoiser, user: UserKey) -> None:
    strict = PapaUpdater(denoiser, CONFIG, GateSettings(probe_samples=0, max_change=1e-9))
    (refused,) = strict.update([first_update(user)], 1.0)
    assert isinstance(refused, Refused) and refused.reason == "change"
