"""Selection at serving, against a naive loop and for whatever order candidates are judged in."""

from __future__ import annotations

import math
import random

import pytest
import torch

from papa.noise import Domain, Noise
from papa.selection import (
    DRAWS_PER_ITEM,
    Candidate,
    Rule,
    Selection,
    Served,
    select,
    successor,
    teaching_share,
)

SEEDS = [2**62 + 17 * i for i in range(12)]


def chance(candidate: Candidate) -> float:
    """What a head would say: a function of the candidate's seed alone."""
    return random.Random(candidate.seed).random()


def naive(seeds: list[int], rule: Rule) -> tuple[dict[int, Candidate], int]:
    """By rounds: what is accepted of each round, then the likeliest of what was rejected."""
    served: dict[int, Candidate] = {}
    rejected: list[Candidate] = []
    drawn = 0
    for number in range(DRAWS_PER_ITEM):
        for item, seed in enumerate(seeds):
            if item in served or drawn == int(rule.overdraw * len(seeds)):
                continue
            candidate = Candidate(number, item, successor(seed, number))
            drawn += 1
            if rule.accepts(chance(candidate), candidate.seed):
                served[item] = candidate
            else:
                rejected.append(candidate)
    able = [each for each in sorted(rejected, key=chance, reverse=True) if chance(each) >= rule.floor]
    open_items = [item for item in range(len(seeds)) if item not in served]
    return served | dict(zip(open_items, able, strict=False)), drawn


def out_of_order(seeds: list[int], rule: Rule, order: random.Random) -> tuple[dict[int, Candidate], Selection]:
    """A few candidates at a time, in any order, as rows of a shared batch finish."""
    selection = Selection(seeds, rule)
    under_way, served = list(selection.first), list[Served]()
    while not selection.done:
        order.shuffle(under_way)
        judged = [under_way.pop() for _ in range(min(len(under_way), order.randint(1, 4)))]
        verdict = selection.judge({each: chance(each) for each in judged})
        served += verdict.served
        under_way += verdict.wanted
        assert all(chance(each) >= rule.floor for each in selection.spare)
        assert len(selection.spare) <= len(seeds) - selection.accepted, "no more than there are items to fill"
    assert {each.candidate for each in selection.rest()} == set(selection.spare)
    assert not under_way, "what was drawn is judged before the end"
    served += selection.rest()
    return {each.item: each.candidate for each in served}, selection


@pytest.mark.parametrize("overdraw", [1.1, 1.5, 2.0, 3.0])
@pytest.mark.parametrize("threshold", [0.3, 0.9])
@pytest.mark.parametrize("floor", [0.0, 0.6])
def test_the_outcome_is_that_of_rounds_in_whatever_order_candidates_are_judged(
    overdraw: float, threshold: float, floor: float
) -> None:
    rule = Rule(overdraw, floor, threshold)
    expected, drawn = naive(SEEDS, rule)
    for seed in range(20):
        found, selection = out_of_order(SEEDS, rule, random.Random(seed))
        assert found == expected
        assert selection.drawn == drawn <= overdraw * len(SEEDS)


def test_an_item_depends_on_its_own_seed_alone_while_the_bound_is_far() -> None:
    rule = Rule(overdraw=DRAWS_PER_ITEM, threshold=0.5)
    together, _ = naive(SEEDS, rule)
    for item, seed in enumerate(SEEDS):
        alone, _ = out_of_order([seed], rule, random.Random(0))
        accepted = rule.accepts(chance(together[item]), together[item].seed)
        assert not accepted or alone[0].seed == together[item].seed


def test_without_overdraw_every_item_is_the_draw_of_its_own_seed() -> None:
    found, selection = out_of_order(SEEDS, Rule(overdraw=1.0, threshold=1.0), random.Random(3))
    assert sorted(each.seed for each in found.values()) == sorted(SEEDS)
    assert selection.drawn == len(SEEDS)


def test_nothing_below_the_floor_is_served_and_items_may_be_missing() -> None:
    found, _ = out_of_order(SEEDS, Rule(overdraw=2.0, floor=0.8), random.Random(4))
    assert 0 < len(found) < len(SEEDS)
    assert min(map(chance, found.values())) >= 0.8


def test_a_candidate_of_which_nothing_is_known_is_accepted() -> None:
    selection = Selection(SEEDS, Rule(floor=0.9))
    verdict = selection.judge(dict.fromkeys(selection.first))
    assert len(verdict.served) == len(SEEDS)
    assert not verdict.wanted
    assert selection.done
    assert not selection.rest()


def test_exploring_items_take_the_first_candidate_above_the_floor() -> None:
    selection = Selection([1, 2], Rule(floor=0.1, threshold=1.0, steepness=math.inf), exploring={0})
    first, second = selection.first
    verdict = selection.judge({first: 0.2, second: 0.2})
    assert [each.item for each in verdict.served] == [0]
    assert [each.item for each in verdict.wanted] == [1]
    assert selection.explores(first)
    assert not selection.explores(second)


def test_an_item_teaches_where_the_head_is_in_doubt_and_is_like_any_other_where_it_is_sure() -> None:
    rule, count = Rule(threshold=0.5, steepness=math.inf), 400
    shares = {}
    for said in (0.5, 0.8, 0.97, 0.01):
        selection = Selection(range(count), rule, teaching=range(count))
        first = selection.first
        assert all(map(selection.explores, first))
        verdict = selection.judge(dict.fromkeys(first, said))
        shares[said] = len(verdict.served) / count
        assert not any(map(selection.explores, verdict.wanted)), "what follows is drawn with the adapter"
        assert len(selection.judge(dict.fromkeys(verdict.wanted, 0.9)).served) == count - len(verdict.served)
    assert shares[0.5] == 1
    assert shares[0.8] == pytest.approx(0.64**2, abs=0.06)
    assert shares[0.97] < 0.05
    assert shares[0.01] < 0.05


def test_nothing_teaches_without_a_draw_to_spare() -> None:
    selection = Selection(SEEDS, Rule(overdraw=1.0), teaching=range(len(SEEDS)))
    assert not any(map(selection.explores, selection.first))
    verdict = selection.judge(dict.fromkeys(selection.first, 0.01))
    assert len(verdict.served) == len(SEEDS), "at once, not at the end"


@pytest.mark.parametrize(("steepness", "expected"), [(1.0, 0.5), (2.0, 0.25), (math.inf, 0.0)])
def test_doubtful_candidates_are_accepted_by_the_share_that_the_rule_says(steepness: float, expected: float) -> None:
    rule = Rule(threshold=0.8, steepness=steepness)
    share = sum(rule.accepts(0.4, seed) for seed in range(2000)) / 2000
    assert share == pytest.approx(expected, abs=0.03)
    assert all(rule.accepts(0.8, seed) for seed in range(20))


def test_successors_have_seeds_of_their_own() -> None:
    seeds = {successor(seed, number) for seed in SEEDS for number in range(DRAWS_PER_ITEM)}
    assert len(seeds) == len(SEEDS) * DRAWS_PER_ITEM
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert successor(SEEDS[0], 0) == SEEDS[0]
    assert all(successor(seed, number) < 2**53 for seed in SEEDS for number in range(1, DRAWS_PER_ITEM))


def test_select_serves_the_samples_that_the_seeds_give() -> None:
    """The seed of a served sample gives it again."""

    def draw(seeds: list[int]) -> torch.Tensor:
        return torch.tensor([[random.Random(seed).random()] for seed in seeds])

    found = select(draw, lambda samples: samples[:, 0], SEEDS, Rule())
    expected, drawn = naive(SEEDS, Rule())
    assert found.items == tuple(range(len(SEEDS)))
    assert found.seeds == tuple(expected[item].seed for item in found.items)
    assert torch.equal(found.samples, draw(list(found.seeds)))
    assert torch.equal(found.chances, found.samples[:, 0])
    assert found.drawn == drawn
    assert found.accepted == sum(Rule().accepts(chance(each), each.seed) for each in expected.values())


@pytest.mark.parametrize("wrong", [{"overdraw": 0.5}, {"floor": 1.5}, {"threshold": 0.0}])
def test_a_rule_that_means_nothing_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="overdraw is at least 1"):
        Rule(**wrong)


def test_questions_are_the_first_candidates_of_items_that_teach_and_are_served_whatever_is_said() -> None:
    asked = [901, 902, 903, 904, 905, 906]
    rule = Rule(floor=0.01, threshold=1.0, steepness=math.inf)
    selection = Selection([10, 11, 12, 13, 14], rule, teaching={1, 3, 4}, questions=asked)
    start = Noise(10, Domain.QUESTION).seed() % 6
    turn = [901 + (start + i) % 6 for i in range(3)]
    assert [each.seed for each in selection.first] == [10, turn[0], 12, turn[1], turn[2]]
    assert [selection.explores(each) for each in selection.first] == [False, True, False, True, True]
    verdict = selection.judge(dict(zip(selection.first, [0.02, 0.02, 0.02, 0.97, 0.001], strict=True)))
    assert [(each.item, each.candidate.seed) for each in verdict.served] == [(1, turn[0]), (3, turn[1])]
    assert [each.seed for each in verdict.wanted] == [successor(seed, 1) for seed in (10, 12, 14)]


def test_another_generation_asks_other_questions_and_what_is_left_teaches_by_its_own_seed() -> None:
    firsts = [Selection([12 * page, 7], Rule(), teaching={0}, questions=range(900, 909)).first for page in range(200)]
    counts = [sum(first[0].seed == asked for first in firsts) for asked in range(900, 909)]
    assert sum(counts) == 200 and min(counts) > 8, "seeds at equal distances ask all of them as well"
    assert all(first[1].seed == 7 for first in firsts)
    few = Selection([4, 5, 6], Rule(), teaching={0, 1}, questions=[901])
    assert [each.seed for each in few.first] == [901, 5, 6]
    without = Selection([4, 5], Rule(overdraw=1.0), teaching={0}, questions=[901])
    assert [each.seed for each in without.first] == [4, 5]


def test_a_candidate_is_compared_with_what_is_typical_of_its_region() -> None:
    rule = Rule(threshold=0.75, steepness=math.inf)
    selection = Selection([1, 2, 3, 4], rule)
    chances = dict(zip(selection.first, [0.45, 0.45, 0.7, 0.7], strict=True))
    typical = dict(zip(selection.first, [0.4, 0.5, 0.8, 0.6], strict=True))
    assert [each.item for each in selection.judge(chances, typical).served] == [0, 3]
    bounded = Selection([1, 2], Rule(1.5, threshold=1.0, steepness=math.inf))
    first = bounded.first
    verdict = bounded.judge({first[0]: 0.3, first[1]: 0.4}, {first[0]: 0.31, first[1]: 0.9})
    bounded.judge({verdict.wanted[0]: 0.05}, {verdict.wanted[0]: 0.9})
    assert [each.candidate for each in bounded.rest()] == [first[0], first[1]], "the nearest to its bar is the first"


def test_less_is_asked_the_more_is_known() -> None:
    assert [teaching_share(0.3, labels) for labels in (0, 10, 15, 30, 150)] == pytest.approx(
        [0.3, 0.3, 0.3, 0.15, 0.03]
    )
