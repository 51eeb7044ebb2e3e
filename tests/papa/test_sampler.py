from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.schedulers import scheduling_ddpm
from torch import Tensor

from papa.denoiser import Conditions, Denoiser
from papa.lora import LoraConfig
from papa.noise import Noise
from papa.sampler import Rows, sample
from papa.schedule import dynamic_shift, rectified_flow, timesteps
from tests.papa.support import random_adapters, tiny_unet

SCHEDULERS = {
    "ddim": lambda: DDIMScheduler(timestep_spacing="trailing", set_alpha_to_one=True, clip_sample=True),
    "ddpm": lambda: DDPMScheduler(timestep_spacing="trailing", clip_sample=True),
    "dpmpp_2m": lambda: DPMSolverMultistepScheduler(timestep_spacing="trailing"),
}


@torch.no_grad()
def diffusers_sample(
    denoiser: Denoiser, sampler: str, steps: int, seed: int, monkeypatch: pytest.MonkeyPatch
) -> Tensor:
    scheduler = SCHEDULERS[sampler]()
    scheduler.set_timesteps(steps)
    noise = Noise(seed)
    x = noise.normal((1, *denoiser.sample_shape))
    for t in scheduler.timesteps:
        if sampler == "ddpm":
            monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda shape, **_: noise.normal(shape))
        x = scheduler.step(denoiser.epsilon(x, t[None]), t, x).prev_sample
    return x


@pytest.mark.parametrize("steps", [5, 10, 25])
@pytest.mark.parametrize("sampler", sorted(SCHEDULERS))
def test_equals_the_scheduler_of_diffusers(
    denoiser: Denoiser, sampler: str, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # DPM-Solver++ of diffusers does not clip.
    ours = sample(denoiser, [3], None, sampler, steps, clip=sampler != "dpmpp_2m")
    torch.testing.assert_close(ours, diffusers_sample(denoiser, sampler, steps, 3, monkeypatch), atol=1e-3, rtol=1e-2)


def test_timesteps_start_at_the_noisiest_and_match_diffusers() -> None:
    for steps in (1, 10, 13, 25, 1000):
        scheduler = SCHEDULERS["ddpm"]()
        scheduler.set_timesteps(steps)
        assert timesteps(1000, steps).tolist() == scheduler.timesteps.tolist()
        assert timesteps(1000, steps)[0] == 999


def test_rows_of_different_methods_lengths_and_ages_share_a_batch(denoiser: Denoiser) -> None:
    settings = [("ddim", 4, 11), ("dpmpp_2m", 5, 12), ("ddpm", 3, 13)]
    alone = [sample(denoiser, [seed], None, kind, steps) for kind, steps, seed in settings]
    noises = [Noise(seed) for _, _, seed in settings]
    draw = [lambda noise=noise: noise.normal((1, *denoiser.sample_shape)) for noise in noises]
    plans = [denoiser.schedule.plan(steps) for _, steps, _ in settings]
    parts = [Rows.start(d(), kind, plan) for d, (kind, *_), plan in zip(draw, settings, plans, strict=True)]
    batch, waiting, finished = parts[0], parts[1:], {}
    order = [0]
    while order:
        with torch.no_grad():
            eps = denoiser.epsilon(batch.x, batch.t)
        noise = torch.cat([draw[i]() if settings[i][0] == "ddpm" else torch.zeros(1, 1, 8, 8) for i in order])
        batch.advance(denoiser.schedule, eps, noise, clip=True)
        done = [row for row in range(len(order)) if batch.t[row] < 0]
        finished |= {order[row]: batch.x[row : row + 1] for row in done}
        keep = [row for row in range(len(order)) if row not in done]
        batch, order = batch.select(torch.tensor(keep, dtype=torch.int64)), [order[row] for row in keep]
        if waiting:
            batch, order = Rows.concat([batch, waiting.pop(0)]), [*order, max(finished.keys() | set(order)) + 1]
    for index, expected in enumerate(alone):
        torch.testing.assert_close(finished[index], expected, atol=1e-4, rtol=1e-3)


def test_below_k_the_backbone_alone_is_asked(denoiser: Denoiser, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, bool]] = []
    epsilon = denoiser.epsilon

    def spy(x: Tensor, t: Tensor, adapters: Tensor | None = None, conditions: Conditions | None = None) -> Tensor:
        asked.append((int(t[0]), adapters is not None))
        return epsilon(x, t, adapters, conditions)

    monkeypatch.setattr(denoiser, "epsilon", spy)
    adapted = sample(denoiser, [1], random_adapters(denoiser, 1), steps=10, adapt_from=400)
    assert asked == [(t, t >= 400) for t in timesteps(1000, 10).tolist()]
    assert not torch.allclose(adapted, sample(denoiser, [1], None, steps=10))
    monkeypatch.undo()
    with pytest.raises(ValueError, match="adapt_from is 1000; with 1000 timesteps it must be 0 to 999"):
        sample(denoiser, [1], random_adapters(denoiser, 1), steps=10, adapt_from=1000)


def test_a_row_does_not_depend_on_its_neighbours(denoiser: Denoiser) -> None:
    adapters = random_adapters(denoiser, 3)
    together = sample(denoiser, [7, 8, 9], adapters, "ddpm", 5)
    alone = sample(denoiser, [8], adapters[1:2], "ddpm", 5)
    torch.testing.assert_close(together[1:2], alone, atol=1e-4, rtol=1e-3)


FLOW_SCHEDULERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "static": {"shift": 3.0},
    "dynamic": {"use_dynamic_shifting": True},
    "stretched": {"use_dynamic_shifting": True, "shift_terminal": 0.02},
}


def flow_denoiser(config: Mapping[str, Any]) -> Denoiser:
    schedule = rectified_flow(config, tokens=64)
    return Denoiser(tiny_unet(), schedule, (1, 8, 8), "flow_prediction", LoraConfig(rank=2, alpha=4))


@pytest.mark.parametrize("kind", FLOW_SCHEDULERS)
@torch.no_grad()
def test_ddim_on_rectified_flow_is_the_euler_method_of_diffusers(kind: str) -> None:
    config, steps = FLOW_SCHEDULERS[kind], 8
    scheduler = FlowMatchEulerDiscreteScheduler(**config)
    scheduler.set_timesteps(
        steps, mu=dynamic_shift(64, 256, 4096, 0.5, 1.15) if "use_dynamic_shifting" in config else None
    )
    denoiser, x = flow_denoiser(config), Noise(3).normal((1, 1, 8, 8))
    for t in scheduler.timesteps:
        x = scheduler.step(denoiser.model(x, t[None]).sample, t, x).prev_sample
    ours = sample(denoiser, [3], None, "ddim", steps, clip=False)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, x, atol=1e-4, rtol=0)


@pytest.mark.parametrize("shift", [1.0, 3.0])
@torch.no_grad()
def test_dpm_solver_on_rectified_flow_equals_that_of_diffusers(shift: float) -> None:
    scheduler = DPMSolverMultistepScheduler(
        use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=shift, timestep_spacing="trailing"
    )
    scheduler.set_timesteps(10)
    denoiser, x = flow_denoiser(scheduler.config), Noise(3).normal((1, 1, 8, 8))
    for step, t in enumerate(scheduler.timesteps):
        # diffusers tells the network whole timesteps, though its steps lie between them.
        told = 1000 * scheduler.sigmas[step : step + 1]
        x = scheduler.step(denoiser.model(x, told).sample, t, x).prev_sample
    torch.testing.assert_close(sample(denoiser, [3], None, "dpmpp_2m", 10, clip=False), x, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "change", [{"shift_terminal": 0.1}, {"use_dynamic_shifting": True}, {"use_lu_lambdas": True},
               {"_class_name": "UniPCMultistepScheduler"}],
)  # fmt: skip
def test_options_that_would_move_the_steps_of_a_solver_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="not supported with use_flow_sigmas"):
        rectified_flow({"use_flow_sigmas": True, "_class_name": "DPMSolverMultistepScheduler", **change}, tokens=64)


@torch.no_grad()
def test_ancestral_sampling_of_rectified_flow_ends_on_the_data() -> None:
    """With the exact ε of one known sample, x_t has the mean α and the standard deviation σ of every t on the way."""
    schedule, shape = flow_denoiser({"shift": 3.0}).schedule, (64, 1, 8, 8)
    wanted, noise = torch.full(shape, 0.5), Noise(1)
    plan = schedule.plan(12)
    rows = Rows.start(noise.normal(shape), "ddpm", plan)
    for _ in plan:
        eps = (rows.x - schedule.alpha(rows.t, rows.x.double()) * wanted) / schedule.sigma(rows.t, rows.x)
        rows.advance(schedule, eps, noise.normal(shape), clip=False)
        alpha, sigma = (float(part(rows.t, rows.x)[0]) for part in (schedule.alpha, schedule.sigma))
        assert float(rows.x.std()) == pytest.approx(sigma, rel=0.05, abs=1e-4)
        assert float(rows.x.mean()) == pytest.approx(alpha * 0.5, abs=0.05)
    torch.testing.assert_close(rows.x, wanted, atol=1e-4, rtol=0)


@torch.no_grad()
def test_below_k_the_backbone_alone_is_asked_on_rectified_flow_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    denoiser, asked = flow_denoiser({"shift": 3.0}), list[bool]()
    adapters, plain = random_adapters(denoiser, 1), denoiser.epsilon

    def seen(x: Tensor, t: Tensor, weights: Tensor | None = None, conditions: Any = None) -> Tensor:
        asked.append(weights is not None)
        return plain(x, t, weights, conditions)

    monkeypatch.setattr(denoiser, "epsilon", seen)
    sample(denoiser, [1], adapters, steps=10, adapt_from=400)
    sigmas = (denoiser.schedule.plan(10) + 1) / 1000
    assert asked == (sigmas >= 0.538).tolist()
    assert True in asked and False in asked
