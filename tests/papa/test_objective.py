from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from papa.denoiser import Denoiser
from papa.noise import Noise
from papa.objective import (
    bounded_enhancer_loss,
    enhancer_loss,
    likes_loss,
    papa_loss,
    quality_loss,
    stratified_timesteps,
)
from papa.reference import SCRIPT_PAPA, ReferenceRecipe, ReferenceTrainer
from papa.updating import Labels
from tests.papa.support import random_adapters, tiny_denoiser

GRADES = [1.0, -1.0, 0.5, -0.25]


def naive_loss(
    denoiser: Denoiser, x0: torch.Tensor, adapter: torch.Tensor, gamma: float, eta: float, k: int, seed: int
):
    """The sum of the paper, written as loops over samples and all timesteps."""
    bar = denoiser.schedule.alphas_cumprod
    total = torch.zeros((), dtype=torch.float64)
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(seed))
    for i, grade in enumerate(GRADES):
        for t in range(k, denoiser.schedule.num_timesteps):
            x_t = bar[t].sqrt().float() * x0[i : i + 1] + (1 - bar[t]).sqrt().float() * noise[i : i + 1]
            time = torch.tensor([t])
            theta, star = denoiser.epsilon(x_t, time, adapter), denoiser.epsilon(x_t, time)
            weight = (1 - bar[t] / bar[t - 1]) / (bar[t] / bar[t - 1] * (1 - bar[t - 1]))
            total += gamma * grade * weight * (noise[i] - theta[0]).square().mean()
            if grade > 0:
                total += eta * (theta - star).square().mean()
    return total


@torch.no_grad()
def test_the_objective_equals_a_naive_loop_over_all_timesteps(denoiser: Denoiser) -> None:
    k, gamma, eta = 985, 0.1, 0.009
    x0, adapter = torch.rand(4, 1, 8, 8) * 2 - 1, random_adapters(denoiser, 1)
    expected = naive_loss(denoiser, x0, adapter, gamma, eta, k, seed=3)
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(3))
    t = torch.arange(k, 1000).repeat(4)
    rows = torch.arange(4).repeat_interleave(1000 - k)
    eps = noise[rows]
    x_t = denoiser.schedule.add_noise(x0[rows], eps, t)
    theta, star = denoiser.epsilon(x_t, t, adapter.expand(len(t), -1)), denoiser.epsilon(x_t, t)
    weight = denoiser.schedule.loss_weights()[t].float()
    got = papa_loss(eps, theta, star, weight, torch.tensor(GRADES)[rows], gamma, eta).sum()
    torch.testing.assert_close(got.double(), expected, rtol=1e-4, atol=1e-6)


def test_each_term_acts_on_its_own_labels() -> None:
    eps, theta, star = torch.randn(3, 4, 1, 8, 8).unbind()
    weight, grade = torch.full((4,), 2.0), torch.tensor(GRADES)
    error = (eps - theta).square().mean(dim=(1, 2, 3))
    assert torch.allclose(likes_loss(eps, theta, weight, grade), 2 * error * torch.tensor([1, 0, 0.5, 0]))
    assert torch.allclose(enhancer_loss(eps, theta, weight, grade), 2 * error * torch.tensor([0, -1, 0, -0.25]))
    gap = (theta - star).square().mean(dim=(1, 2, 3))
    assert torch.allclose(quality_loss(theta, star, grade), gap * torch.tensor([1.0, 0, 1, 0]))


def test_the_bounded_enhancer_starts_as_the_published_one_and_fades() -> None:
    eps, star = torch.randn(2, 1, 1, 8, 8).unbind()
    weight, grade = torch.ones(1), torch.tensor([-1.0])

    def gradients(theta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        theta = theta.clone().requires_grad_()
        published = enhancer_loss(eps, theta, weight, grade).sum()
        bounded = bounded_enhancer_loss(eps, theta, star, weight, grade, beta=30.0).sum()
        return torch.autograd.grad(published, theta)[0], torch.autograd.grad(bounded, theta)[0]

    torch.testing.assert_close(*gradients(star))
    forgotten = star + 0.6 * (star - eps)
    published, bounded = gradients(forgotten)
    assert bounded.norm() < 1e-3 * published.norm()
    assert bounded_enhancer_loss(eps, forgotten, star, weight, grade, beta=30.0).item() >= 0


def test_strata_cover_the_range_once_each() -> None:
    t = stratified_timesteps(400, 1000, (500, 12), Noise(0))
    assert t.min() >= 400 and t.max() < 1000
    assert torch.equal((t - 400) // 50, torch.arange(12).expand(500, 12))


@pytest.mark.parametrize("m", [1, 7, 12])
def test_the_stratified_estimate_is_unbiased(m: int) -> None:
    """The mean of 20,000 estimates lies within four standard errors of the full sum (one false alarm in 16,000)."""
    low, high, trials = 400, 1000, 20_000
    values = torch.sin(torch.arange(1000, dtype=torch.float64) / 37) + torch.arange(1000, dtype=torch.float64) / 300
    t = stratified_timesteps(low, high, (trials, m), Noise(m))
    estimates = values[t].mean(dim=1) * (high - low)
    exact = values[low:high].sum()
    assert abs(estimates.mean() - exact) < 4 * estimates.std() / math.sqrt(trials)


@pytest.mark.parametrize("script", [False, True])
def test_the_reference_recipe_takes_the_step_of_the_full_sum(script: bool) -> None:
    """One Adam step per sample on the sum over every timestep, whatever the chunks. The script's eight processes have a
    noise draw each, and hold the model at their last timesteps alone."""
    recipe = replace(SCRIPT_PAPA if script else ReferenceRecipe(), adapt_from=970, chunk=7, learning_rate=1e-3)
    trained, naive, star = tiny_denoiser(), tiny_denoiser(), tiny_denoiser()
    labels = Labels(torch.randint(0, 255, (2, 1, 8, 8), dtype=torch.uint8), torch.tensor([1.0, -1.0]))
    assert recipe.ranks == (8 if script else 1)
    ReferenceTrainer(trained, star, recipe).interaction_step(labels, Noise(5))

    random = Noise(5)
    optimizer = torch.optim.Adam(naive.model.requires_grad_(True).parameters(), lr=1e-3)
    for sample, grade in zip(labels.samples, labels.grades, strict=True):
        x0 = sample[None].float() / 127.5 - 1
        noises = [random.normal(x0.shape) for _ in range(recipe.ranks)]
        loss = torch.zeros(())
        for t in range(970, 1000):
            time, noise = torch.tensor([t]), noises[(t - 970) % recipe.ranks]
            x_t = naive.schedule.add_noise(x0, noise, time)
            theta = naive.epsilon(x_t, time)
            weight = naive.schedule.loss_weights()[t].float()
            loss = loss + 0.1 * grade * weight * F.mse_loss(theta, noise)
            if grade > 0 and (not script or t >= 992):
                loss = loss + 0.009 * F.mse_loss(theta, star.epsilon(x_t, time))
        optimizer.zero_grad()
        (loss / recipe.ranks).backward()
        optimizer.step()
    moved = 0.0
    for ours, theirs, before in zip(
        trained.model.parameters(), naive.model.parameters(), star.model.parameters(), strict=True
    ):
        torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=0)
        moved = max(moved, (ours - before).detach().abs().max().item())
    assert moved > 1e-3


def test_timesteps_must_go_round_all_processes() -> None:
    with pytest.raises(ValueError, match="5 timesteps cannot be dealt to 8"):
        ReferenceTrainer(tiny_denoiser(), tiny_denoiser(), replace(SCRIPT_PAPA, timesteps=5))
