from __future__ import annotations

import pytest
import torch
from diffusers import DDPMScheduler

from papa.schedule import NoiseSchedule


def test_noising_equals_diffusers() -> None:
    x0, noise = torch.randn(2, 4, 1, 8, 8).unbind()
    t = torch.tensor([0, 1, 500, 999])
    expected = DDPMScheduler().add_noise(x0, noise, t)
    torch.testing.assert_close(NoiseSchedule.linear().add_noise(x0, noise, t), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("beta_schedule", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_reads_a_diffusers_config(beta_schedule: str) -> None:
    scheduler = DDPMScheduler(beta_schedule=beta_schedule, num_train_timesteps=100)
    schedule = NoiseSchedule.from_diffusers(scheduler.config)
    torch.testing.assert_close(schedule.alphas_cumprod.float(), scheduler.alphas_cumprod)


def test_loss_weights_follow_the_formula_and_define_t_zero() -> None:
    schedule = NoiseSchedule.linear()
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    alphas = 1 - betas
    bar = alphas.cumprod(0)
    weights = schedule.loss_weights()
    for t in (1, 2, 400, 999):
        assert weights[t].item() == pytest.approx(((1 - alphas[t]) / (alphas[t] * (1 - bar[t - 1]))).item(), rel=1e-9)
    assert weights[0].item() == pytest.approx(1 / alphas[0].item(), rel=1e-9)


def test_a_finished_row_is_clean_data() -> None:
    like = torch.zeros(1, 1, 8, 8)
    assert NoiseSchedule.linear().alpha_bar(torch.tensor([-1]), like).item() == 1
