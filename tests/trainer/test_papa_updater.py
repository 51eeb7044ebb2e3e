"""The real learning: events in, verified files out."""

import json
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from papa_serving.contracts.errors import RevisionDamaged
from papa_serving.contracts.feedback import LoggedEvent, UserBatch
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.samples import pack_sample
from papa_serving.settings import GateSettings
from papa_serving.trainer.papa_updater import PapaUpdater
from papa_serving.trainer.updater import Refused, Trained, UserUpdate, Weights

from papa.config import DEFAULT_LORA, DEFAULT_UPDATE
from papa.denoiser import Denoiser, load_denoiser
from papa.revision_files import MANIFEST_FILE, WEIGHTS_FILE, unpack
from tests.trainer.tiny_backbone import SHAPE, write_tiny_backbone

CONFIG = replace(DEFAULT_UPDATE, like_rows=6, dislike_rows=4, steps=2)
OFF = GateSettings(probe_samples=0)


@pytest.fixture(scope="module")
def denoiser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Denoiser]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield load_denoiser(str(write_tiny_backbone(tmp_path_factory.mktemp("tiny"))), DEFAULT_LORA)
    torch.set_num_threads(threads)


@pytest.fixture
def updater(denoiser: Denoiser) -> PapaUpdater:
    return PapaUpdater(denoiser, CONFIG, OFF)


def events_of(user: UserKey, count: int, start: int = 1) -> tuple[LoggedEvent, ...]:
    pictures = np.random.default_rng(start).integers(0, 256, (count, *SHAPE), dtype=np.uint8)
    return tuple(
        LoggedEvent(
            entry_id=f"{number}-0",
            sequence=number,
            event_id=f"e{number}",
            user=user,
            grade=-1.0 if number % 3 == 0 else 1.0,
            sample=pack_sample(picture),
            revision="",
            accepted_at=1000.0 + number,
        )
        for number, picture in enumerate(pictures, start)
    )


def first_update(user: UserKey, count: int = 5) -> UserUpdate:
    return UserUpdate(UserBatch(user, events_of(user, count)), "", Weights())


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
    assert len(adapter.replay) == 9
    assert b'"000001-x"' in second.files[MANIFEST_FILE]


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
