"""The tiny backbone's updater, events with pictures for it, and an update small enough for a test."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from papa_serving.contracts.feedback import LoggedEvent, UserBatch
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.samples import pack_sample
from papa_serving.settings import GateSettings
from papa_serving.trainer.papa_updater import PapaUpdater
from papa_serving.trainer.updater import UserUpdate, Weights

from papa.config import DEFAULT_LORA, DEFAULT_UPDATE
from papa.denoiser import Denoiser, load_denoiser
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
