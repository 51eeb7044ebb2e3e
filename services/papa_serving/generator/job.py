"""One generation as the engine knows it: its rows, its adapter, and where its results go."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from papa.denoiser import Conditions
from papa.noise import Noise
from papa.sampler import Rows
from papa.selection import Candidate, Rule, Selection, Served
from papa.taste import Head
from papa_serving import metrics
from papa_serving.contracts.errors import PapaError
from papa_serving.contracts.identity import UserKey

SEEDS = 2**63
"""Seeds are taken modulo this."""
UNSELECTED = Rule(overdraw=1.0)


@dataclass(frozen=True)
class AdapterKey:
    """The key of every cache of adapters: never the user alone."""

    user: UserKey
    revision: str


@dataclass(frozen=True, eq=False)
class HostAdapter:
    """A checked adapter in host memory. Shape: `weights` [P], in the engine's type. `head` says how likely its user
    likes a sample; None where the revision has none or nobody is told."""

    key: AdapterKey
    weights: Tensor
    head: Head | None = None


@dataclass(frozen=True, eq=False)
class FinishedRows:
    """Settled items of one job, in one message; none where only `drawn` is news. Shape: `samples`
    [len(served), C, H, W] float32, on the host.

    `last`: no more follow. `drawn` counts the draws so far, those under way included, and `accepted` those of them that
    were accepted.
    """

    served: tuple[Served, ...]
    samples: Tensor
    last: bool
    drawn: int
    accepted: int

    @property
    def indexes(self) -> tuple[int, ...]:
        """The items' indexes within the generation."""
        return tuple(each.item for each in self.served)


@dataclass(eq=False)
class Job:
    """A generation of `count` items, of which item i begins from seed `seed` + i.

    What is drawn becomes an item as `rule` says, where the adapter has a head. Items in `explore` are drawn without
    adapter, those in `teach` begin so (papa.selection). `deliver` is called on the engine's
    thread with each group of settled items, or once with an error. `submitted_at` and `started_at` (first row admitted,
    0 before) are of the monotonic clock. `conditions` is one row, which all of its rows share; None for a backbone
    without prompts.
    """

    user: UserKey
    count: int
    seed: int
    sampler: str
    steps: int
    deliver: Callable[[FinishedRows | PapaError], None]
    adapter: HostAdapter | None = None
    explore: frozenset[int] = frozenset()
    teach: frozenset[int] = frozenset()
    conditions: Conditions | None = None
    rule: Rule = UNSELECTED
    submitted_at: float = field(default_factory=time.monotonic)
    started_at: float = 0.0
    cancelled: bool = False
    _selection: Selection = field(init=False)
    _spare: dict[Candidate, Tensor] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        seeds = [(self.seed + index) % SEEDS for index in range(self.count)]
        head = None if self.adapter is None else self.adapter.head
        questions = () if head is None else head.questions
        self._selection = Selection(seeds, self.rule, self.explore, self.teach, questions)

    def rows(self, plan: tuple[float, ...]) -> list[Row]:
        """The first row of each item, not yet started; `plan` holds the descending timesteps."""
        return [self._row(candidate, plan) for candidate in self._selection.first]

    def settle(
        self, rows: Sequence[Row], chances: Sequence[float | None], samples: Tensor, typical: Sequence[float] = ()
    ) -> tuple[FinishedRows | None, list[Row]]:
        """Takes finished rows. Returns what follows from them for the caller, and the rows to draw next.

        For the caller that is the settled items, and how much is drawn by now, which is charged. None where no item is
        settled and no row is to be drawn.

        `typical` says what is typical of the samples' regions; it may be empty.

        Shape: samples [len(rows), C, H, W], on the host.
        """
        drawn = {row.candidate: sample for row, sample in zip(rows, samples, strict=True)}
        verdict = self._selection.judge(dict(zip(drawn, chances, strict=True)), dict(zip(drawn, typical, strict=False)))
        settled = {each.candidate for each in verdict.served}
        metrics.DRAWS.labels("accepted").inc(len(settled))
        metrics.DRAWS.labels("rejected").inc(len(drawn) - len(settled))
        # Cloned, because each is a view of the whole batch's samples.
        self._spare = {
            each: self._spare[each] if each in self._spare else drawn[each].clone() for each in self._selection.spare
        }
        successors = [self._row(candidate, rows[0].plan) for candidate in verdict.wanted]
        served, last = verdict.served, self._selection.done
        if last:
            served += self._selection.rest()
        if not (served or successors or last):
            return None, successors
        of = self._spare | drawn
        samples = torch.stack([of[each.candidate] for each in served]) if served else samples[:0]
        return FinishedRows(served, samples, last, self._selection.drawn, self._selection.accepted), successors

    def explores(self, candidate: Candidate) -> bool:
        """Whether the candidate is drawn without the adapter."""
        return self._selection.explores(candidate)

    def _row(self, candidate: Candidate, plan: tuple[float, ...]) -> Row:
        return Row(self, candidate, plan, None if self.explores(candidate) else self.adapter)


@dataclass(eq=False)
class Row:
    """One candidate of an item in the making.

    `position` is the index into `plan` of the step to come; `slot` is 0 without adapter.

    `noise` gives x_T and then, for ancestral sampling, the noise of each step: that of the row's seed, whatever its
    neighbours are. `stint` counts the steps since it was last admitted; `parked` holds its state while it makes room.
    """

    job: Job
    candidate: Candidate
    plan: tuple[float, ...]
    adapter: HostAdapter | None
    position: int = 0
    slot: int = 0
    stint: int = 0
    noise: Noise = field(init=False)
    parked: Rows | None = None

    def __post_init__(self) -> None:
        self.noise = Noise(self.candidate.seed)

    @property
    def left(self) -> int:
        """The number of steps that are left."""
        return len(self.plan) - self.position

    @property
    def done(self) -> bool:
        """Whether no step is left."""
        return not self.left

    def wants_adapter(self, adapt_from: int) -> bool:
        """Whether the step to come uses an adapter: EPAPA leaves t < `adapt_from`, the timestep of K, to
        the backbone."""
        return self.adapter is not None and self.plan[self.position] >= adapt_from
