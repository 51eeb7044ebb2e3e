"""One generation as the engine knows it: its rows, its adapter, and where its results go."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from papa.denoiser import Conditions
from papa.noise import Noise
from papa.sampler import Rows
from papa.taste import Head
from papa_serving.contracts.errors import PapaError
from papa_serving.contracts.identity import UserKey

SEEDS = 2**63
"""Seeds are taken modulo this."""


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
    """Samples of one job that are done, in one message. Shape: `samples` [k, C, H, W] float32, on the host;
    `like_probabilities` has k, or none where nothing is known of the user."""

    indexes: tuple[int, ...]
    samples: Tensor
    like_probabilities: tuple[float, ...] = ()

    def like_probability(self, position: int) -> float | None:
        """Of the sample at that position."""
        return self.like_probabilities[position] if self.like_probabilities else None


@dataclass(eq=False)
class Job:
    """A generation of `count` rows; row i has seed `seed` + i and runs without adapter where i is in `explore`.

    `deliver` is called on the engine's thread with each group of finished rows, or once with an error. `submitted_at`
    and `started_at` (first row admitted, 0 before) are of the monotonic clock. `conditions` is one row, which all of
    its rows share; None for a backbone without prompts.
    """

    user: UserKey
    count: int
    seed: int
    sampler: str
    steps: int
    deliver: Callable[[FinishedRows | PapaError], None]
    adapter: HostAdapter | None = None
    explore: frozenset[int] = frozenset()
    conditions: Conditions | None = None
    submitted_at: float = field(default_factory=time.monotonic)
    started_at: float = 0.0
    cancelled: bool = False

    def rows(self, plan: tuple[float, ...]) -> list[Row]:
        """Its rows, not yet started; `plan` holds the descending timesteps."""
        return [Row(self, index, plan, None if index in self.explore else self.adapter) for index in range(self.count)]


@dataclass(eq=False)
class Row:
    """One item in the making. `position` is the index into `plan` of the step to come; `slot` is 0 without adapter.

    `noise` gives x_T and then, for ancestral sampling, the noise of each step: that of the row's seed, whatever its
    neighbours are. `stint` counts the steps since it was last admitted; `parked` holds its state while it makes room.
    """

    job: Job
    index: int
    plan: tuple[float, ...]
    adapter: HostAdapter | None
    position: int = 0
    slot: int = 0
    stint: int = 0
    noise: Noise = field(init=False)
    parked: Rows | None = None

    def __post_init__(self) -> None:
        self.noise = Noise((self.job.seed + self.index) % SEEDS)

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
