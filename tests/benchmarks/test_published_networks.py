"""One mixed step of published networks as they are, in bfloat16 on the CPU: random weights, small latents."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from benchmarks.gpu.models import PUBLISHED, of_size
from papa.noise import Domain, Noise
from tests.papa.support import random_adapters

SMALL = 64
"""Pixels of a side. The networks take latents of any size; these are 8 × 8, so that a step takes seconds."""


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_rows_of_several_users_in_one_step_are_as_each_alone(name: str) -> None:
    denoiser = of_size(replace(PUBLISHED[name], picture=SMALL), "cpu", torch.bfloat16)
    adapters = random_adapters(denoiser, 2, scale=0.5)
    x = Noise(3, Domain.PROBE).normal((3, *denoiser.sample_shape))
    t = torch.tensor([900, 700, 500])

    def step(rows: slice, weights: Tensor | None) -> Tensor:
        conditions = denoiser.conditions(["a boot"] * len(x[rows]))
        return denoiser.epsilon(x[rows], t[rows], weights, conditions)

    with torch.no_grad():
        mixed, bare = step(slice(0, 3), adapters), step(slice(0, 3), None)
        alone = torch.cat([step(slice(0, 1), adapters[:1]), step(slice(1, 2), adapters[1:]), step(slice(2, 3), None)])
    assert mixed.isfinite().all()
    off, effect = (mixed - alone).flatten(1).norm(dim=1), (mixed - bare).flatten(1).norm(dim=1)
    assert (off[:2] < 0.2 * effect[:2]).all(), "rounding is small beside what an adapter does"
    assert off[2] < 0.05 * mixed[2].norm()
