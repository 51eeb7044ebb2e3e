"""Stable targets against a toy mixture whose ideal denoiser is known in closed form."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from papa.noise import Noise
from papa.schedule import NoiseSchedule
from papa.targets import liked_shift, pool_posterior, stable_target

SCHEDULE = NoiseSchedule.linear()
MEANS = torch.tensor([[1.5, 0.0], [-1.0, 1.2], [0.0, -1.4]])
SHARES = torch.tensor([0.5, 0.3, 0.2])
SPREAD = 0.3
"""Of each component: p = Σ_k π_k N(μ_k, SPREAD² I) in two dimensions."""


def drawn(count: int) -> tuple[Tensor, Tensor]:
    """Samples of p and the component of each."""
    random = Noise(1)
    kind = random.choice(SHARES, count)
    return MEANS[kind] + SPREAD * random.normal((count, 2)), kind


def ideal_eps(x_t: Tensor, t: Tensor, shares: Tensor) -> Tensor:
    """E[ε | x_t] where p has these shares (ε = (x_t − √ᾱ x0) / √(1−ᾱ)): in closed form."""
    alpha_bar = SCHEDULE.alphas_cumprod[t].float()[:, None]
    variance = alpha_bar * SPREAD**2 + 1 - alpha_bar
    away = x_t[:, None] - alpha_bar.sqrt()[..., None] * MEANS
    posterior = torch.softmax(shares.log() - away.square().sum(2) / (2 * variance), dim=1)
    x0 = MEANS + (alpha_bar.sqrt() * SPREAD**2 / variance)[..., None] * away
    return (x_t - alpha_bar.sqrt() * (posterior[..., None] * x0).sum(1)) / (1 - alpha_bar).sqrt()


def noised(count: int, low: int) -> tuple[Tensor, Tensor]:
    x0, _ = drawn(count)
    random = Noise(2)
    t = low + random.integers(1000 - low, count)
    return SCHEDULE.add_noise(x0, random.normal((count, 2)), t), t


@pytest.mark.parametrize("liked", [(0,), (1, 2), (2,)])
def test_the_target_is_the_ideal_denoiser_of_what_is_liked(liked: tuple[int, ...]) -> None:
    pool, kind = drawn(40_000)
    chance = torch.isin(kind, torch.tensor(liked)).float()
    x_t, t = noised(200, low=300)
    restricted = torch.where(torch.isin(torch.arange(3), torch.tensor(liked)), SHARES, torch.tensor(1e-30))
    target = stable_target(ideal_eps(x_t, t, SHARES), x_t, t, pool, chance, SCHEDULE)
    away = (target - ideal_eps(x_t, t, restricted)).square().mean().sqrt()
    moved = (ideal_eps(x_t, t, restricted) - ideal_eps(x_t, t, SHARES)).square().mean().sqrt()
    assert away < 0.05 * moved


def test_where_everything_is_liked_alike_the_target_is_the_backbones_own() -> None:
    pool, _ = drawn(500)
    x_t, t = noised(50, low=300)
    star = ideal_eps(x_t, t, SHARES)
    for chance in (1.0, 0.3, 0.0):
        torch.testing.assert_close(
            stable_target(star, x_t, t, pool, torch.full((500,), chance), SCHEDULE), star, atol=1e-5, rtol=0
        )


def test_the_shift_is_the_disliked_share_times_the_way_from_disliked_to_liked() -> None:
    """The identity of design, for chances between 0 and 1 as well."""
    pool, kind = drawn(300)
    chance = torch.tensor([0.9, 0.2, 0.5])[kind]
    x_t, t = noised(40, low=500)
    weights = pool_posterior(x_t, t, pool, SCHEDULE)
    torch.testing.assert_close(weights.sum(1), torch.ones(40))
    disliked = weights @ (1 - chance)
    liked_mean = (weights * chance) @ pool / (weights @ chance)[:, None]
    disliked_mean = (weights * (1 - chance)) @ pool / disliked[:, None]
    expected = disliked[:, None] * (liked_mean - disliked_mean)
    torch.testing.assert_close(liked_shift(x_t, t, pool, chance, SCHEDULE), expected, atol=1e-5, rtol=1e-4)


def test_sharpness_scales_the_way_and_pictures_keep_their_shape() -> None:
    random = Noise(3)
    pool, chance = random.normal((20, 1, 4, 4)), random.uniform((20,)).float()
    x_t, t = random.normal((6, 1, 4, 4)), torch.tensor([600, 700, 800, 900, 950, 999])
    star = torch.zeros_like(x_t)
    once, twice = (stable_target(star, x_t, t, pool, chance, SCHEDULE, s) for s in (1.0, 2.0))
    assert once.shape == x_t.shape and once.abs().max() > 0
    torch.testing.assert_close(twice, 2 * once)
