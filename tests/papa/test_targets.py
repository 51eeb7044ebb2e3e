"""Stable targets: against a toy mixture whose ideal denoiser is known in closed form, and in an update."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from papa.adapter import new_adapter
from papa.config import UpdateConfig
from papa.denoiser import Denoiser
from papa.lora import LoraConfig
from papa.noise import Noise
from papa.objective import squared_error
from papa.pool import StoredPool
from papa.schedule import NoiseSchedule
from papa.targets import liked_shift, pool_posterior, stable_target
from papa.updating import Labels, UpdateJob, update, update_many
from tests.papa.support import tiny_unet

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


def test_rows_of_several_users_have_targets_of_their_own() -> None:
    pool, kind = drawn(300)
    x_t, t = noised(6, low=600)
    mine, theirs = torch.tensor([1.0, 0.0, 0.0])[kind], torch.tensor([0.0, 0.4, 1.0])[kind]
    together = liked_shift(x_t, t, pool, torch.stack([mine] * 3 + [theirs] * 3), SCHEDULE)
    torch.testing.assert_close(together[:3], liked_shift(x_t[:3], t[:3], pool, mine, SCHEDULE))
    torch.testing.assert_close(together[3:], liked_shift(x_t[3:], t[3:], pool, theirs, SCHEDULE))


SHAPE = (1, 8, 8)
LEARNT = UpdateConfig(steps=20, like_rows=12, dislike_rows=12, adapt_from=600, stable_from=600, averaging=0.0)


@pytest.fixture(scope="module")
def denoiser() -> Denoiser:
    """With a pool of bright and of dark pictures."""
    return Denoiser(
        tiny_unet(), SCHEDULE, SHAPE, "epsilon", LoraConfig(rank=4), unrated=StoredPool(shades(*[200, 250, 60, 10] * 8))
    )


def shades(*values: int) -> Tensor:
    """Pictures of nearly one shade each. Shape: [n, 1, 8, 8] uint8."""
    noise = Noise(len(values)).integers(9, len(values) * 64).view(-1, *SHAPE) - 4
    return (torch.tensor(values)[:, None, None, None] + noise).clamp(0, 255).to(torch.uint8)


def likes(bright: bool) -> Labels:
    grades = torch.tensor([1.0] * 6 + [-1.0] * 6)
    return Labels(shades(*[240] * 6, *[15] * 6), grades if bright else -grades)


@torch.no_grad()
def away_from_target(denoiser: Denoiser, weights: Tensor, liked: Tensor) -> tuple[float, float]:
    """Mean squared distance of ε_θ and of ε* to the target at noise that was not trained on."""
    assert denoiser.pool is not None
    random = Noise(77)
    x0 = denoiser.pool.x0.repeat(4, 1, 1, 1)
    t = 600 + random.integers(400, len(x0))
    x_t = SCHEDULE.add_noise(x0, random.normal(x0.shape), t)
    star = denoiser.epsilon(x_t, t)
    target = stable_target(star, x_t, t, denoiser.pool.x0, liked, SCHEDULE, LEARNT.sharpness)
    theta = denoiser.epsilon(x_t, t, weights.expand(len(x_t), -1))
    return float(squared_error(theta, target).mean()), float(squared_error(star, target).mean())


def test_an_update_moves_the_model_towards_the_target_of_its_own_taste(denoiser: Denoiser) -> None:
    adapter, _ = update(denoiser, new_adapter(denoiser), likes(bright=True), LEARNT, 0)
    assert denoiser.pool is not None
    bright = (denoiser.pool.x0.flatten(1).mean(1) > 0).float()
    learnt, before = away_from_target(denoiser, adapter.weights, bright)
    opposite, before_opposite = away_from_target(denoiser, adapter.weights, 1 - bright)
    assert learnt < 0.95 * before
    assert opposite > 1.05 * before_opposite


def test_users_who_learn_targets_together_equal_each_alone(denoiser: Denoiser) -> None:
    config = replace(LEARNT, steps=3)
    jobs = [UpdateJob(new_adapter(denoiser), likes(bright), seed) for seed, bright in enumerate((True, False))]
    for job, (together, _) in zip(jobs, update_many(denoiser, jobs, config), strict=True):
        alone, _ = update(denoiser, job.adapter, job.labels, config, job.seed)
        assert torch.linalg.vector_norm(together.weights - alone.weights) < 0.02 * torch.linalg.vector_norm(
            alone.weights
        )


def test_rows_below_stable_from_learn_the_bounded_terms(denoiser: Denoiser, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []

    def noting(eps_star: Tensor, x_t: Tensor, t: Tensor, *rest: object) -> Tensor:
        seen.append(t)
        return stable_target(eps_star, x_t, t, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr("papa.updating.stable_target", noting)
    config = replace(LEARNT, adapt_from=400, stable_from=800, steps=2)
    update(denoiser, new_adapter(denoiser), likes(bright=True), config, 0)
    assert len(seen) == 2 and all(0 < len(t) < 24 and int(t.min()) >= 800 for t in seen)


def test_one_kind_of_labels_is_learnt_by_the_bounded_terms(denoiser: Denoiser) -> None:
    """They do not say what is liked among the pool, so that its targets would be the backbone's own."""
    given = likes(bright=True)
    dislikes = Labels(given.samples[6:], given.grades[6:])
    on, off = (
        update(denoiser, new_adapter(denoiser), dislikes, replace(LEARNT, steps=2, stable_from=start), 0)[0]
        for start in (600, 1000)
    )
    assert torch.equal(on.weights, off.weights) and bool((on.weights != 0).any())


def test_targets_can_be_switched_off_and_need_a_pool(denoiser: Denoiser) -> None:
    off = replace(LEARNT, steps=1, stable_from=1000)
    first, second = (
        update(denoiser, new_adapter(denoiser), likes(bright=True), replace(off, sharpness=s), 0)[0] for s in (1.0, 3.0)
    )
    assert torch.equal(first.weights, second.weights)
    bare = Denoiser(tiny_unet(), SCHEDULE, SHAPE, "epsilon", LoraConfig(rank=4))
    on, without = (
        update(bare, new_adapter(bare), likes(bright=True), replace(off, stable_from=start), 0)[0]
        for start in (600, 1000)
    )
    assert torch.equal(on.weights, without.weights)
