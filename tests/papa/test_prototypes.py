"""The kinds that a taste consists of: few directions, their shares, and what a head knows of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from papa.pool import Pool
from papa.prototypes import BACKBONE, Kinds, Prototypes, accepted, backbone_kinds, kinds
from papa.taste import Head, Taste
from papa.updating import informed

SIDES = torch.tensor([[4.0, 0, 0], [0, 4.0, 0], [0, 0, 4.0]])


def samples(*counts: int, seed: int = 1) -> torch.Tensor:
    """So many samples around each side, side by side."""
    noise = torch.Generator().manual_seed(seed)
    return torch.cat(
        [side + 0.3 * torch.randn(count, 3, generator=noise) for side, count in zip(SIDES, counts, strict=False)]
    )


def by_side(found: Prototypes) -> list[float]:
    """The share of each side."""
    sides = found.directions.argmax(1)
    return [float(found.shares[sides == side].sum()) for side in range(3)]


@pytest.fixture
def pool() -> Pool:
    features = samples(60, 90, 50).half()
    return Pool(torch.zeros(len(features), 1, 1, 1), features, first_seed=100)


@pytest.fixture
def head(pool: Pool) -> Head:
    """Of a user who likes the first and the second side."""
    features = samples(10, 10, 10, seed=2)
    grades = torch.tensor([1.0] * 20 + [-1.0] * 10)
    taste = Taste(features, grades, pool.unrated, 0.3, 10)
    head = taste.head()
    assert head is not None
    return informed(head, taste, pool)


def test_prototypes_are_where_the_samples_are_with_their_share() -> None:
    found = Prototypes.of(samples(60, 30, 10), torch.ones(100), 3)
    torch.testing.assert_close(found.directions.norm(dim=1), torch.ones(3))
    assert by_side(found) == pytest.approx([0.6, 0.3, 0.1])
    assert float(found.directions.amax(1).min()) > 0.99


def test_weights_count_and_samples_without_weight_do_not() -> None:
    weights = torch.tensor([1.0] * 10 + [3.0] * 10 + [0.0] * 10)
    assert by_side(Prototypes.of(samples(10, 10, 10), weights, 3)) == pytest.approx([0.25, 0.75, 0.0])


def test_there_are_no_more_prototypes_than_samples_differ() -> None:
    twins = torch.cat([SIDES[:1]] * 5 + [SIDES[1:2]] * 5)
    assert len(Prototypes.of(twins, torch.ones(10), 8).shares) == 2
    assert len(Prototypes.of(twins[:0], torch.ones(0), 8).shares) == 0
    broken = torch.tensor([[torch.nan, 0, 0], [0, 0, 0], [torch.inf, 1, 1]])
    assert len(Prototypes.of(broken, torch.ones(3), 8).shares) == 0


def test_what_is_drawn_is_the_part_of_the_pool_that_selection_accepts(head: Head, pool: Pool) -> None:
    found = kinds(head, samples(3, 0, 0), torch.ones(3), pool)
    share = accepted(head, pool.features)
    expected = [float(part.sum() / share.sum()) for part in share.split([60, 90, 50])]
    assert by_side(found.drawn) == pytest.approx(expected, abs=1e-6)
    assert by_side(found.drawn)[2] < 0.05, "what is not liked is not drawn"
    assert min(by_side(found.drawn)[:2]) > 0.3, "both kinds are, not just the surer one"


def test_what_was_liked_counts_unless_it_was_a_slip(head: Head, pool: Pool) -> None:
    liked = samples(4, 0, 4, seed=5)
    grades = torch.tensor([1.0, 1.0, 0.5, 1.0, 1.0, 1.0, 1.0, -1.0])
    assert by_side(kinds(None, liked, grades, pool).liked) == pytest.approx([3.5 / 6.5, 0.0, 3 / 6.5])
    assert by_side(kinds(head, liked, grades, pool).liked)[2] < 0.1


def test_questions_are_those_of_the_head(head: Head, pool: Pool) -> None:
    head = replace(head, questions=(103, 170, 99))  # the last one is none of the pool
    found = kinds(head, samples(3, 0, 0), torch.ones(3), pool).questions
    asked = pool.features[[3, 70]].float()
    torch.testing.assert_close(found.directions, asked / asked.norm(dim=1, keepdim=True))
    former = Pool(pool.x0, pool.features)
    assert len(kinds(head, samples(3, 0, 0), torch.ones(3), former).questions.shares) == 0


def test_without_a_head_or_a_pool_only_the_likes_are_known(head: Head, pool: Pool) -> None:
    for known, there in ((None, pool), (head, None)):
        found: Kinds = kinds(known, samples(3, 0, 0), torch.ones(3), there)
        assert (len(found.drawn.shares), len(found.questions.shares)) == (0, 0)
        assert by_side(found.liked) == pytest.approx([1.0, 0.0, 0.0])


def test_the_backbone_has_kinds_whatever_is_known_of_it(pool: Pool) -> None:
    assert by_side(backbone_kinds(pool, 3)) == pytest.approx([0.3, 0.45, 0.25])
    anywhere = backbone_kinds(None, 64)
    assert anywhere.directions.shape == (BACKBONE, 64)
    assert torch.equal(anywhere.directions, backbone_kinds(None, 64).directions)
    torch.testing.assert_close(anywhere.shares, torch.full((BACKBONE,), 1 / BACKBONE, dtype=torch.float64))
