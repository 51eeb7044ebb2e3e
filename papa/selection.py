"""Selection at serving: which candidates of a generation are drawn, and which of them become its items.

Rejection sampling by the user's taste head. The first candidate of an item has the item's own seed; a rejected one has
a successor, whose seed derives from it. To accept x with a chance proportional to P(liked | x) turns samples of p_θ(x)
into samples of p_θ(x) P(liked | x) (von Neumann, Various techniques used in connection with random digits, 1951);
`Rule` is steeper than that, and accepts everything above its threshold: more is liked, for the same number of draws.

| word | meaning |
|---|---|
| candidate | one draw: the k-th of an item, with its seed |
| chance | P(liked) of a candidate by the taste head; None where nothing is known |
| typical | the chance that is typical of what is liked in the candidate's region (papa.regions) |
| question | the seed of a sample of the backbone whose label would teach most (papa.taste.Taste.questions) |
| overdraw | the most draws of a generation, in multiples of its items; 1 switches selection off |
| floor | the least chance of an item; an item that finds no such candidate is left out |
| exploring | drawn from the backbone, whatever the adapter has learnt |

The outcome depends on the items' seeds, the chances and the rule alone, never on the order in which candidates are
judged: draws count in the order (k, item), and one is wanted only once it is certain to lie within the bound. While
neither this bound nor DRAWS_PER_ITEM is reached, an item that is not there to teach depends on its own seed alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from operator import itemgetter
from typing import NamedTuple

import torch
from torch import Tensor

from papa.noise import Domain, Noise

DRAWS_PER_ITEM = 4
"""The most draws of one item, so that no item keeps a whole page waiting. Where a head accepts 70 % of the candidates,
one item in a hundred reaches this bound."""
FIRST_LABELS = 15
"""The labels within which the most is asked. From a hundred on, a page of ten asks nothing by default."""


@dataclass(frozen=True)
class Rule:
    """Accepts a candidate with probability min(1, (chance / bar)^`steepness`), and none below `floor`.

    The bar is what is typical of the candidate's region, or `threshold` where that is not known. Steepness 1 is plain
    rejection sampling, an infinite one a hard threshold.
    """

    overdraw: float = 2.0
    floor: float = 0.0
    threshold: float = 0.75
    steepness: float = 4.0
    curiosity: float = 2.0
    """Exponent of 4 p (1 − p), the uncertainty by which a teaching candidate is accepted."""

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if not (self.overdraw >= 1 and 0 <= self.floor <= 1 and 0 < self.threshold <= 1):
            raise ValueError(f"{self}: overdraw is at least 1, floor and threshold are probabilities")

    def accepts(self, chance: float, seed: int, typical: float | None = None) -> bool:
        """Whether the candidate of that seed is accepted. The random number is a function of the seed."""
        return chance >= self.floor and _lucky(min(1.0, self.relative(chance, typical)) ** self.steepness, seed)

    def relative(self, chance: float, typical: float | None = None) -> float:
        """The chance in multiples of the bar."""
        return chance / (self.threshold if typical is None else typical)

    def teaches(self, chance: float, seed: int) -> bool:
        """Whether a candidate is accepted because its label would be informative.

        The probability is a power of the uncertainty 4 p (1 − p), so fewer are accepted as the head grows certain. This
        is uncertainty sampling (Lewis & Gale, SIGIR 1994).
        """
        return chance >= self.floor and _lucky((4 * chance * (1 - chance)) ** self.curiosity, seed)


class Candidate(NamedTuple):
    """Draw `number`, from 0, of the item with index `item`. Candidates are drawn in the order of their tuples."""

    number: int
    item: int
    seed: int


class Served(NamedTuple):
    """The candidate that becomes an item."""

    item: int
    candidate: Candidate
    chance: float | None


class Verdict(NamedTuple):
    """The result of judging candidates: the items that have accepted one, and the candidates to draw next."""

    served: tuple[Served, ...]
    wanted: tuple[Candidate, ...]


def _lucky(share: float, seed: int) -> bool:
    return share >= 1 or float(Noise(seed, Domain.LUCK).uniform((1,))) < share


def teaching_share(share: float, labels: int) -> float:
    """The share of a page that may teach: `share` up to FIRST_LABELS labels, and from there as 1 / labels."""
    return share * min(1.0, FIRST_LABELS / max(1, labels))


def successor(seed: int, number: int) -> int:
    """The seed of candidate `number` of the item with that seed; number 0 is the item's own.

    Others are below 2^53, so that a program whose numbers are doubles (JSON) can hold them.
    """
    return Noise(seed, Domain.SUCCESSOR, number).seed() >> 10 if number else seed


class Selection:
    """Selects one generation: draw `first`, `judge` them, draw what that wants until `done`, then take the `rest`."""

    def __init__(
        self,
        seeds: Sequence[int],
        rule: Rule,
        exploring: Collection[int] = (),
        teaching: Collection[int] = (),
        questions: Sequence[int] = (),
    ) -> None:
        """`seeds` are those of the items.

        Items in `exploring` take their first candidate above the floor, whatever its chance. The first candidate of an
        item in `teaching` comes from the backbone: it is one of the `questions`, and accepted unless it is below the
        floor, or it has the item's own seed and is accepted by its uncertainty. Later candidates of that item are
        ordinary ones. Where the bound allows no further draw, `teaching` has no effect.
        """
        self._rule, self._seeds = rule, tuple(seeds)
        self._limit = int(rule.overdraw * len(seeds))
        self._selects = self._limit > len(seeds)
        self._exploring = frozenset(exploring)
        self._teaching = frozenset(teaching) - self._exploring if self._selects else frozenset[int]()
        self._asked = dict(zip(sorted(self._teaching), self._turn(questions), strict=False))
        """The question that is the first candidate of an item."""
        self._newest = dict.fromkeys(range(len(seeds)), 0)
        """The number of the newest candidate of every item that has accepted none."""
        self._accepted_at: dict[int, int] = {}
        self._waiting: set[int] = set()
        """Items whose newest candidate was rejected."""
        self._spare: list[tuple[float, Served]] = []
        """Each with its chance in multiples of the bar, in decreasing order of that."""
        self.drawn = len(seeds)

    @property
    def first(self) -> tuple[Candidate, ...]:
        """The first candidate of each item."""
        return tuple(Candidate(0, item, self._asked.get(item, seed)) for item, seed in enumerate(self._seeds))

    def explores(self, candidate: Candidate) -> bool:
        """Whether the candidate is to be drawn from the backbone, without the adapter."""
        return candidate.item in self._exploring or (candidate.number == 0 and candidate.item in self._teaching)

    @property
    def accepted(self) -> int:
        """Candidates that were accepted so far."""
        return len(self._accepted_at)

    @property
    def spare(self) -> tuple[Candidate, ...]:
        """The rejected candidates that may still become items, the best first.

        None is below the floor, and there are at most as many as items without an accepted candidate. The samples of
        all other rejected candidates may be discarded.
        """
        return tuple(each.candidate for _, each in self._spare)

    @property
    def done(self) -> bool:
        """Whether every wanted candidate has been judged and no further one will be wanted."""
        return len(self._waiting) == len(self._newest)

    def judge(
        self, chances: Mapping[Candidate, float | None], typical: Mapping[Candidate, float] | None = None
    ) -> Verdict:
        """Takes the chances of drawn candidates, and what is typical of their regions. A candidate whose chance is None
        is accepted."""
        served, typical = [], typical or {}
        for candidate, chance in chances.items():
            settled = Served(candidate.item, candidate, chance)
            if chance is None or self._accepts(candidate, chance, typical.get(candidate)):
                del self._newest[candidate.item]
                self._accepted_at[candidate.item] = candidate.number
                served.append(settled)
            else:
                self._waiting.add(candidate.item)
                if chance >= self._rule.floor:
                    self._spare.append((self._rule.relative(chance, typical.get(candidate)), settled))
        self._spare.sort(key=lambda each: (-each[0], each[1].candidate))
        del self._spare[len(self._newest) :]
        wanted = tuple(self._wanted())
        self.drawn += len(wanted)
        return Verdict(tuple(served), wanted)

    def rest(self) -> tuple[Served, ...]:
        """Fills the items that have accepted no candidate, once `done`, with the best of the rejected candidates.

        Candidates below the floor are never used, so some items may stay empty.
        """
        left = zip(sorted(self._newest), self._spare, strict=False)
        return tuple(each._replace(item=item) for item, (_, each) in left)

    def _turn(self, questions: Sequence[int]) -> Sequence[int]:
        """The questions of this generation: as many as may be asked, in turn, from where the first seed says."""
        if not questions or not self._teaching:
            return ()
        start = Noise(self._seeds[0], Domain.QUESTION).seed() % len(questions)
        return (*questions[start:], *questions[:start])[: len(self._teaching)]

    def _accepts(self, candidate: Candidate, chance: float, typical: float | None) -> bool:
        if not self._selects or candidate.item in self._exploring:
            return chance >= self._rule.floor
        if self.explores(candidate):
            asked = candidate.item in self._asked
            return chance >= self._rule.floor if asked else self._rule.teaches(chance, candidate.seed)
        return self._rule.accepts(chance, candidate.seed, typical)

    def _wanted(self) -> Iterator[Candidate]:
        """Successors of rejected candidates that are certain to be among the first draws that the bound allows."""
        due = sorted((self._newest[item] + 1, item) for item in self._waiting)
        for number, items in groupby(due, key=itemgetter(0)):
            before = self._before(number)
            for _, item in items:
                if number == DRAWS_PER_ITEM or before[item] >= self._limit:
                    return  # and so it is for all that come after it
                self._waiting.discard(item)
                self._newest[item] = number
                yield Candidate(number, item, successor(self._seeds[item], number))

    def _before(self, number: int) -> list[int]:
        """The most draws that may come before draw `number` of each item: an item that has not accepted an earlier one
        may want one of each number."""
        accepted = [self._accepted_at.get(item, number) for item in range(len(self._seeds))]
        whole = sum(min(number, at + 1) for at in accepted)
        return list(accumulate((at >= number for at in accepted), initial=whole))


@dataclass(frozen=True, eq=False)
class Selected:
    """The served samples of one generation.

    `items` are their indexes among the requested items, and `seeds` reproduce them. Shape: samples [n, …], chances [n];
    n is at most the number of requested items.
    """

    samples: Tensor
    chances: Tensor
    items: tuple[int, ...]
    seeds: tuple[int, ...]
    drawn: int
    accepted: int


def select(
    draw: Callable[[list[int]], Tensor],
    judge: Callable[[Tensor], Tensor],
    seeds: Sequence[int],
    rule: Rule,
) -> Selected:
    """Draws one generation by rounds, as the service does in its running batch.

    `draw` maps n seeds to samples [n, …], `judge` maps samples to their chances [n].
    """
    selection, samples = Selection(seeds, rule), dict[Candidate, Tensor]()
    wanted, served = selection.first, list[Served]()
    while wanted:
        drawn = draw([candidate.seed for candidate in wanted])
        samples |= zip(wanted, drawn, strict=True)
        verdict = selection.judge(dict(zip(wanted, judge(drawn).tolist(), strict=True)))
        served += verdict.served
        wanted = verdict.wanted
    served = sorted([*served, *selection.rest()], key=lambda each: each.item)
    chosen = [samples[each.candidate] for each in served]
    return Selected(
        samples=torch.stack(chosen) if chosen else drawn[:0],
        chances=torch.tensor([each.chance for each in served]),
        items=tuple(each.item for each in served),
        seeds=tuple(each.candidate.seed for each in served),
        drawn=selection.drawn,
        accepted=selection.accepted,
    )
