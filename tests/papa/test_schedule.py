from __future__ import annotations

import pytest
import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux.pipeline_flux import calculate_shift

from papa.schedule import NoiseSchedule, RectifiedFlow, dynamic_shift, rectified_flow


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
    assert NoiseSchedule.linear().signal(torch.tensor([-1]), like).item() == 1


@pytest.mark.parametrize("flow", [RectifiedFlow(), RectifiedFlow(shift=3.0, spacing="even")])
def test_rectified_flow_is_the_same_process_on_another_clock(flow: RectifiedFlow) -> None:
    x0, noise = torch.randn(2, 4, 1, 8, 8, dtype=torch.float64).unbind()
    t = torch.tensor([-1.0, 0.25, 499.0, 998.0], dtype=torch.float64)
    sigma = ((t + 1) / 1000).view(-1, 1, 1, 1)
    torch.testing.assert_close(flow.add_noise(x0, noise, t), (1 - sigma) * x0 + sigma * noise)
    assert flow.told(t).tolist() == pytest.approx([0, 1.25, 500, 999])
    expected = 2 * ((1 - sigma) / sigma).log()
    torch.testing.assert_close(2 * flow.half_log_snr(t, x0)[1:], expected[1:])
    torch.testing.assert_close(flow.log_snr()[[499, 998]], expected[2:].flatten())


@pytest.mark.parametrize("schedule", [NoiseSchedule.linear(), RectifiedFlow()])
def test_loss_weights_are_the_ratio_of_two_signal_to_noise_ratios(schedule: NoiseSchedule) -> None:
    """arXiv 2107.00630, eq. 14, for both kinds."""
    snr, weights = schedule.log_snr().exp(), schedule.loss_weights()
    torch.testing.assert_close(weights[1:-1], (snr[:-1] / snr[1:] - 1)[:-1], rtol=1e-6, atol=0)
    assert bool((weights > 0).all()) and bool(weights.isfinite().all())
    assert weights[0].item() == pytest.approx(1 / float(schedule.signal(torch.tensor([0]), torch.zeros(1).double())))


def test_k_is_the_same_noise_level_on_both() -> None:
    scaled = NoiseSchedule.from_diffusers({"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012})
    flow = RectifiedFlow()
    assert scaled.adapted_from(400) == NoiseSchedule.linear().adapted_from(400) == 400
    first = flow.adapted_from(400)
    wanted = float(scaled.log_snr()[400])
    assert flow.log_snr()[first] <= wanted < flow.log_snr()[first - 1]
    assert flow.adapted_from(0) == 0
    with pytest.raises(ValueError, match="adapt_from is 1000"):
        flow.adapted_from(1000)


@pytest.mark.parametrize(("steps", "terminal"), [(1, None), (2, None), (7, None), (28, None), (2, 0.02), (28, 0.02)])
@pytest.mark.parametrize("kind", ["static", "exponential", "linear"])
def test_steps_lie_where_those_of_diffusers_do(kind: str, steps: int, terminal: float | None) -> None:
    """Both of the grid that the scheduler makes itself and of the one that FLUX's pipeline gives it."""
    dynamic = kind != "static"
    scheduler = FlowMatchEulerDiscreteScheduler(
        shift=3.0, use_dynamic_shifting=dynamic, shift_terminal=terminal,
        time_shift_type="linear" if kind == "linear" else "exponential",
    )  # fmt: skip
    mu = dynamic_shift(1024, 256, 4096, 0.5, 1.15)
    assert mu == pytest.approx(calculate_shift(1024, 256, 4096, 0.5, 1.15))
    for even in (False, True):
        given = [n / steps for n in range(steps, 0, -1)] if even else None
        scheduler.set_timesteps(None if even else steps, sigmas=given, mu=mu if dynamic else None)
        ours = rectified_flow(scheduler.config, tokens=1024, even=even)
        torch.testing.assert_close((ours.plan(steps) + 1).float(), scheduler.timesteps, atol=2e-3, rtol=0)


@pytest.mark.parametrize("odd", ["use_karras_sigmas", "use_beta_sigmas", "invert_sigmas", "stochastic_sampling"])
def test_steps_that_lie_elsewhere_are_refused(odd: str) -> None:
    with pytest.raises(ValueError, match=odd):
        rectified_flow({odd: True}, tokens=64)
