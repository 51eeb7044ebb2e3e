"""How far a revision that is rebuilt from its parent, its labels and its seed may be from the first one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from papa.adapter import new_adapter
from papa.config import UpdateConfig
from papa.denoiser import Denoiser
from papa.lora import LoraConfig
from papa.noise import Domain, Noise
from papa.schedule import NoiseSchedule
from papa.updating import Labels, UpdateJob, update_many
from tests.papa.support import tiny_unet

CONFIG = UpdateConfig(steps=3, like_rows=6, dislike_rows=4)
SHAPE = (1, 8, 8)
SHARE = 0.03
"""Of what the update moved; ARCHITECTURE.md and papa.updating state it."""


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def iterate(denoiser: Denoiser, threads: int, neighbours: int) -> Tensor:
    """Of one and the same job, in a batch with others."""
    torch.set_num_threads(threads)
    jobs = [UpdateJob(new_adapter(denoiser), given(seed), seed) for seed in range(neighbours, -1, -1)]
    adapter, _ = update_many(denoiser, jobs, CONFIG)[-1]
    assert adapter.iterate is not None
    return adapter.iterate


def given(seed: int) -> Labels:
    pictures = Noise(seed, Domain.USER).integers(256, 640).view(10, *SHAPE)
    return Labels(pictures.to(torch.uint8), torch.tensor([1.0, -1.0] * 5))


@pytest.mark.parametrize("autocast", [torch.bfloat16, None], ids=["bfloat16", "float32"])
def test_a_rebuilt_revision_is_the_same_or_as_near_as_is_said(autocast: torch.dtype | None) -> None:
    """The same bit for bit where nothing differs; else within a share of what was learnt."""
    denoiser = Denoiser(tiny_unet(), NoiseSchedule.linear(), SHAPE, "epsilon", LoraConfig(rank=2), autocast)
    first = iterate(denoiser, threads=1, neighbours=0)
    assert torch.equal(first, iterate(denoiser, threads=1, neighbours=0))
    moved = float((first - new_adapter(denoiser).weights).norm())
    for threads, neighbours in ((2, 0), (1, 1)):
        differs = float((first - iterate(denoiser, threads, neighbours)).norm())
        assert differs <= SHARE * moved, (threads, neighbours, differs / moved)
