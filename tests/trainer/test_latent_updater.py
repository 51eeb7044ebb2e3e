"""Learning in latent space: what is trained on comes from items and from pictures, each with its prompt."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from papa_serving.contracts.feedback import LoggedEvent, UserBatch
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.samples import pack_sample
from papa_serving.settings import GateSettings
from papa_serving.trainer.papa_updater import PapaUpdater
from papa_serving.trainer.updater import Trained, UserUpdate, Weights

from papa.config import DEFAULT_UPDATE
from papa.denoiser import Denoiser, load_denoiser
from papa.revision_files import unpack
from tests.papa.pipelines import saved, stable_diffusion

ADA = UserKey("tenant", "ada")
# An untrained model's samples say nothing: the gate lets everything finite pass.
OPEN = GateSettings(min_diversity=0.0, min_contrast=0.0, max_shift=100.0, max_norm=100.0, max_change=100.0)


@pytest.fixture(scope="module")
def denoiser(tmp_path_factory: pytest.TempPathFactory) -> Denoiser:
    return load_denoiser(saved(stable_diffusion(), tmp_path_factory.mktemp("latent")))


@pytest.fixture(scope="module")
def updater(denoiser: Denoiser) -> PapaUpdater:
    return PapaUpdater(denoiser, DEFAULT_UPDATE, OPEN)


def event(number: int, sample: bytes, grade: float = 1.0) -> LoggedEvent:
    return LoggedEvent(f"{number}-0", number, f"e{number}", ADA, grade, sample, "", float(number))


def latents(seed: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float16]]:
    return np.random.default_rng(seed).standard_normal((4, 8, 8)).astype(np.float16)


def picture(seed: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 255, (3, 16, 16), dtype=np.uint8)


def test_an_update_takes_latents_of_items_and_encodes_pictures(updater: PapaUpdater, denoiser: Denoiser) -> None:
    events = (
        event(1, pack_sample(latents(1), "a red boot")),
        event(2, pack_sample(picture(2), "shirt"), -1.0),
        event(3, pack_sample(picture(3))),
    )
    assert [updater.flaw(each) for each in events] == ["", "", ""]
    (trained,) = updater.update([UserUpdate(UserBatch(ADA, events), "", Weights())], 1.0)
    assert isinstance(trained, Trained), trained
    replay = unpack(trained.files, denoiser.layout, denoiser.hashes, trained.sha256).replay
    assert replay.prompts == ("a red boot", "shirt", "")
    assert np.array_equal(replay.samples[0].numpy(), latents(1))
    encoded = denoiser.encode(torch.from_numpy(picture(2)).float()[None] / 127.5 - 1)[0]
    torch.testing.assert_close(replay.samples[1], encoded.half())


@pytest.mark.parametrize(
    ("sample", "flaw"),
    [
        (pack_sample(np.zeros((4, 8, 9), np.float16)), "the backbone's"),
        (pack_sample(np.zeros((4, 8, 8), np.uint8)), "the backbone's"),
        (pack_sample(np.full((4, 8, 8), np.inf, np.float16)), "not finite"),
        (pack_sample(latents(1), "boot")[:-1], "length"),
        (pack_sample(latents(1), "boot")[:12], "does not decode"),
    ],
)
def test_what_cannot_be_trained_on_is_named(updater: PapaUpdater, sample: bytes, flaw: str) -> None:
    assert flaw in updater.flaw(event(1, sample))
