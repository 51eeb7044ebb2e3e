"""Zero terminal SNR (Lin et al., arXiv 2305.08891): the same latents as diffusers' DDIM, and learning stays finite."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler

from papa.adapter import new_adapter
from papa.config import UpdateConfig
from papa.denoiser import Denoiser, load_denoiser
from papa.noise import Noise
from papa.sampler import SAMPLERS, sample
from papa.updating import Labels, update
from tests.papa.pipelines import SCHEDULER, saved, stable_diffusion

STEPS = 5
"""A divisor of T: with others diffusers' DDIM steps to timesteps that it does not visit next."""


@pytest.fixture(scope="module", params=["v_prediction", "sample"])
def rescaled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Denoiser]:
    pipe = stable_diffusion()
    pipe.scheduler = DDIMScheduler(**SCHEDULER, prediction_type=request.param, rescale_betas_zero_snr=True)
    return pipe, load_denoiser(saved(pipe, tmp_path_factory.mktemp("rescaled")))


def test_ddim_equals_that_of_diffusers(rescaled: tuple[Any, Denoiser]) -> None:
    pipe, denoiser = rescaled
    pipe.set_progress_bar_config(disable=True)
    assert float(pipe.scheduler.alphas_cumprod[-1]) == 0
    noise = Noise(3).normal((1, *denoiser.sample_shape))
    with torch.no_grad():
        options = {"num_inference_steps": STEPS, "output_type": "latent", "height": 16, "width": 16}
        theirs = pipe("a boot", latents=noise.clone(), guidance_scale=3.0, **options).images
    ours = sample(denoiser, [3], None, "ddim", STEPS, conditions=denoiser.conditions(["a boot"], 3.0))
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", SAMPLERS)
def test_every_sampler_starts_from_pure_noise(kind: Any, rescaled: tuple[Any, Denoiser]) -> None:
    _, denoiser = rescaled
    latents = sample(denoiser, [1, 2], None, kind, STEPS, conditions=denoiser.conditions(["a boot", ""], 3.0))
    assert bool(latents.isfinite().all())
    assert bool(denoiser.decode(latents).isfinite().all())


def test_an_update_learns_from_it(rescaled: tuple[Any, Denoiser]) -> None:
    _, denoiser = rescaled
    samples = torch.randn(4, *denoiser.sample_shape, generator=torch.Generator().manual_seed(0)).half()
    labels = Labels(samples, torch.tensor([1.0, 1.0, -1.0, -1.0]), ("boot",) * 4)
    config = UpdateConfig(steps=3, like_rows=4, dislike_rows=2, learning_rate=5e-2)
    adapter, stats = update(denoiser, new_adapter(denoiser), labels, config, 0)
    assert bool(adapter.weights.isfinite().all())
    assert stats.change > 0
