"""How a page is composed: each kind's share, the likeliest of each kind, and nothing twice alike."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from papa_serving.catalogue.page import Candidate, Chosen, compose, turns
from papa_serving.contracts.recommending import Kind, Origin, Taste

DRAWN, LIKED, QUESTION, BACKBONE = Origin.DRAWN, Origin.LIKED, Origin.QUESTION, Origin.BACKBONE


def kind(origin: Origin, share: float) -> Kind:
    return Kind(origin, np.ones(2, np.float32), share)


def candidate(
    name: str, number: int, chance: float = math.nan, near: float = 0.9, at: Sequence[float] = ()
) -> Candidate:
    place = at or np.random.default_rng(list(name.encode())).normal(size=4)
    return Candidate(name, {number: near}, np.array(place, np.float32), chance)


def names(chosen: Sequence[Chosen]) -> list[str]:
    return [each.candidate.item_id for each in chosen]


def counted(taste: Taste, count: int, exploration: float, pages: int = 400) -> np.ndarray:
    """How often each kind has a turn, on average of a page."""
    found = Counter(
        number for seed in range(pages) for number in turns(taste, count, exploration, np.random.default_rng(seed))
    )
    return np.array([found[number] / pages for number in range(len(taste.kinds))])


def test_each_kind_has_its_share_of_the_page() -> None:
    taste = Taste("r", 50, [kind(DRAWN, 0.5), kind(DRAWN, 0.3), kind(DRAWN, 0.2)])
    for seed in range(20):
        page = Counter(turns(taste, 10, 0.0, np.random.default_rng(seed)))
        assert all(abs(page[number] - 10 * each.share) < 1 for number, each in enumerate(taste.kinds))
    np.testing.assert_allclose(counted(taste, 7, 0.0), [3.5, 2.1, 1.4], atol=0.15)


def test_what_is_drawn_and_what_is_liked_share_the_page_and_some_of_it_asks() -> None:
    taste = Taste(
        "r", 50, [kind(DRAWN, 1.0), kind(LIKED, 0.5), kind(LIKED, 0.5), kind(QUESTION, 0.5), kind(QUESTION, 0.5)]
    )
    np.testing.assert_allclose(counted(taste, 10, 0.1), [4.5, 2.25, 2.25, 0.5, 0.5], atol=0.15)
    assert counted(taste, 10, 0.0)[3:].tolist() == [0, 0]
    assert all(len(turns(taste, 10, 1.0, np.random.default_rng(seed))) == 10 for seed in range(20))


def test_likes_alone_are_looked_for_beside_the_spread_of_the_backbone() -> None:
    taste = Taste("r", 0, [kind(LIKED, 1.0), kind(BACKBONE, 0.5), kind(BACKBONE, 0.5)])
    np.testing.assert_allclose(counted(taste, 8, 0.0), [4, 2, 2], atol=0.1)


def test_nobody_known_gets_the_spread_of_the_backbone() -> None:
    taste = Taste("", 0, [kind(BACKBONE, 0.25) for _ in range(4)])
    assert not taste.personal
    np.testing.assert_allclose(counted(taste, 10, 0.0), [2.5] * 4, atol=0.1)


def test_the_likeliest_of_each_kind_is_taken_and_the_sure_kind_does_not_win() -> None:
    kinds = [kind(DRAWN, 0.5), kind(DRAWN, 0.5)]
    sure = [candidate(f"bag{n}", 0, 0.99 - n / 1_000) for n in range(9)]
    unsure = [candidate(f"coat{n}", 1, 0.75 - n / 100) for n in range(9)]
    assert names(compose([*sure, *unsure], kinds, [0, 1, 0, 1], 4, 0.0)) == ["bag0", "coat0", "bag1", "coat1"]


def test_a_kind_that_the_catalogue_lacks_leaves_its_turns_to_others() -> None:
    kinds = [kind(DRAWN, 0.5), kind(DRAWN, 0.5)]
    liked = [candidate(f"bag{n}", 0, 0.9 - n / 1_000) for n in range(4)]
    far = [candidate(f"boot{n}", 1, 0.05) for n in range(4)]
    assert names(compose([*liked, *far], kinds, [0, 1, 0, 1], 4, 0.0)) == ["bag0", "bag1", "bag2", "bag3"]
    assert set(names(compose([*liked, *far], kinds, [0, 1], 6, 0.0))) > {"bag0", "bag1", "bag2", "bag3"}, "none is left"


def test_diversity_takes_the_unlike_one() -> None:
    kinds = [kind(DRAWN, 1.0)]
    twins = [
        candidate("a", 0, 0.9, at=(0, 0)),
        candidate("b", 0, 0.89, at=(0, 0.01)),
        candidate("c", 0, 0.7, at=(5, 5)),
    ]
    assert names(compose(twins, kinds, [0, 0], 2, 0.0)) == ["a", "b"]
    assert names(compose(twins, kinds, [0, 0], 2, 0.5)) == ["a", "c"]


def test_a_question_takes_what_is_nearest_to_it_however_unlikely() -> None:
    kinds = [kind(DRAWN, 1.0), kind(QUESTION, 1.0)]
    asked = [candidate("q0", 1, 0.4, near=0.99), candidate("q1", 1, 0.6, near=0.9)]
    assert names(compose([candidate("a", 0, 0.9), *asked], kinds, [0, 1], 2, 0.0)) == ["a", "q0"]


def test_without_chances_the_nearest_are_taken() -> None:
    kinds = [kind(BACKBONE, 0.5), kind(BACKBONE, 0.5)]
    found = [candidate("a", 0, near=0.8), candidate("b", 0, near=0.9), candidate("c", 1, near=0.7)]
    assert names(compose(found, kinds, [0, 1], 2, 0.0)) == ["b", "c"]
    assert names(compose(found, kinds, [0, 1], 5, 0.0)) == ["b", "c", "a"]
    assert compose([], kinds, [0, 1], 2, 0.3) == []
