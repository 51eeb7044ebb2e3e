"""One mixed step of published networks as they are, in bfloat16 on the CPU: random weights, small latents."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from benchmarks.gpu import models
from benchmarks.gpu.models import PUBLISHED, of_size
from papa.noise import Domain, Noise
from tests.papa.support import random_adapters

PIXELS = {"sd15": 32, "sdxl": 16}
"""Of a side. The networks take latents of any size and prompts of any length: small ones take a CPU seconds."""

TOKENS = 4


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_rows_of_several_users_in_one_step_are_as_each_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One row has an adapter, the other has none."""
    monkeypatch.setattr(models, "TOKENS", TOKENS)
    denoiser = of_size(replace(PUBLISHED[name], picture=PIXELS[name]), "cpu", torch.bfloat16)
    adapter = random_adapters(denoiser, 1, scale=0.5)
    x = Noise(3, Domain.PROBE).normal((2, *denoiser.sample_shape))
    t = torch.tensor([900, 500])

    def step(rows: slice, weights: Tensor | None) -> Tensor:
        conditions = denoiser.conditions(["a boot"] * len(x[rows]))
        return denoiser.epsilon(x[rows], t[rows], weights, conditions)

    with torch.no_grad():
        mixed, bare = step(slice(0, 2), adapter), step(slice(0, 2), None)
        alone = step(slice(0, 1), adapter)
    assert mixed.isfinite().all()
    off, effect = (mixed[0] - alone[0]).norm(), (mixed[0] - bare[0]).norm()
    assert off < 0.2 * effect, "rounding is small beside what an adapter does"
    assert (mixed[1] - bare[1]).norm() < 0.05 * mixed[1].norm()
