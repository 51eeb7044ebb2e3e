from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from papa.backbone.draw_pool import draw_pool
from papa.denoiser import Denoiser
from papa.noise import VERSION, Domain, Noise, seed_torch
from papa.pixels import to_pixels
from papa.pool import FIRST_SEED
from papa.sampler import sample

SHAPE = (1, 28, 28)


def test_all_64_bits_of_a_seed_count() -> None:
    """torch's CPU generator drops all but 32: 2^48 + 5 drew what 5 draws."""
    seeds = [5, *(5 + (1 << bit) for bit in (3, 31, 32, 33, 48, 62, 63))]
    drawn = {tuple(Noise(seed).normal((16,)).tolist()) for seed in seeds}
    assert len(drawn) == len(seeds)


@pytest.mark.parametrize("seed", [-1, 1 << 64])
def test_a_seed_that_does_not_fit_is_refused(seed: int) -> None:
    with pytest.raises(ValueError, match="2\\^64"):
        Noise(seed)


def test_distinct_seeds_domains_streams_and_draws_are_unrelated() -> None:
    sequences = [Noise(seed, domain, stream) for seed in range(20) for domain in Domain for stream in range(2)]
    rows = torch.stack([noise.normal(SHAPE).flatten() for noise in sequences for _ in range(2)])
    correlation = torch.corrcoef(rows).fill_diagonal_(0)
    # Of 200,000 pairs the largest is expected at 4.6 / √784; 7 / √784 has a chance of 1e-6.
    assert correlation.abs().max() < 7 / math.sqrt(rows.shape[1])


def test_normal_numbers_are_normal() -> None:
    x = torch.cat([Noise(seed).normal((1000,)) for seed in range(1000)]).double()
    error = 5 / math.sqrt(len(x))
    assert abs(x.mean()) < error
    assert abs(x.var() - 1) < error * math.sqrt(2)
    assert abs((x**3).mean()) < error * math.sqrt(15)
    assert abs((x**4).mean() - 3) < error * math.sqrt(96)
    # Kolmogorov and Smirnov: √n D exceeds 2 with a chance of 0.0007.
    cdf = torch.special.ndtr(x.sort().values)
    assert (cdf - (torch.arange(len(x)) + 0.5) / len(x)).abs().max() * math.sqrt(len(x)) < 2
    pairs = x.view(-1, 2)
    assert abs((pairs[:, 0] * pairs[:, 1]).mean()) < 2 * error  # the two of one pair do not depend on each other
    assert x.isfinite().all() and x.abs().max() < 7


def test_the_map_from_seeds_to_noise_is_what_its_version_says() -> None:
    """Whoever changes these numbers gives every stored seed another picture: raise VERSION then."""
    assert VERSION == 2
    key = np.array([2**48 + 5, VERSION << 32 | Domain.ITEM], dtype=np.uint64)
    noise, drawn = Noise(2**48 + 5), []
    for draw in range(2):
        words = np.random.Philox(counter=np.array([0, draw, 0, 0], dtype=np.uint64), key=key).random_raw(2)
        for word in words.tolist():
            radius = math.sqrt(-2 * math.log(((word & 0xFFFFFFFF) + 0.5) / 2**32))
            angle = 2 * math.pi * (word >> 32) / 2**32
            drawn += [radius * math.cos(angle), radius * math.sin(angle)]
    torch.testing.assert_close(torch.cat([noise.normal((4,)), noise.normal((2, 2)).flatten()]), torch.tensor(drawn))
    torch.testing.assert_close(Noise(5).normal((3,)), torch.tensor(KNOWN))


KNOWN = [0.0090321, 0.7332429, 1.9821166]


def test_a_draw_does_not_depend_on_the_length_of_those_before() -> None:
    short, long = Noise(3), Noise(3)
    short.normal((1,))
    long.normal((1000,))
    assert torch.equal(short.normal((7,)), long.normal((7,)))


def test_choice_follows_its_probabilities_and_never_takes_what_has_none() -> None:
    probabilities, count = torch.tensor([0.0, 1.0, 0.0, 3.0, 0.5, 0.0]), 40_000
    share = Noise(1).choice(probabilities, count).bincount(minlength=6) / count
    assert share[probabilities == 0].sum() == 0
    expected = probabilities / probabilities.sum()
    assert ((share - expected).abs() <= 5 * (expected / count).sqrt()).all()


def test_integers_and_permutations_cover_their_range() -> None:
    assert Noise(2).integers(7, 5000).bincount().min() > 600
    assert Noise(2).permutation(500).sort().values.tolist() == list(range(500))


def test_first_weights_depend_on_the_whole_seed() -> None:
    drawn = []
    for seed in (5, 5 + 2**48):
        seed_torch(seed, Domain.TRAINING)
        drawn.append(torch.rand(3))
    assert not torch.equal(*drawn)


def test_a_sample_depends_on_the_whole_seed_and_not_on_the_batch(denoiser: Denoiser) -> None:
    low, high = sample(denoiser, [5, 2**48 + 5], None, "ddpm", 3)
    assert (low - high).abs().mean() > 0.1
    alone = sample(denoiser, [2**48 + 5], None, "ddpm", 3)[0]
    torch.testing.assert_close(alone, high, atol=1e-4, rtol=1e-3)


def test_an_item_is_a_sample_of_the_pool_only_if_it_has_its_seed(denoiser: Denoiser) -> None:
    pool = draw_pool(denoiser, 3, steps=2).samples
    same = to_pixels(sample(denoiser, [FIRST_SEED, FIRST_SEED + 1, FIRST_SEED + 2], None, "dpmpp_2m", 2))
    assert (pool.int() - same.int()).abs().max() <= 1
    for first in (0, 2**48):
        items = to_pixels(sample(denoiser, [first, first + 1, first + 2], None, "dpmpp_2m", 2))
        assert (pool[:, None].float() - items[None].float()).abs().flatten(2).mean(dim=2).min() > 1
