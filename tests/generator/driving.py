"""What a test needs to run jobs on an engine without an event loop."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from papa_serving.contracts.errors import PapaError
from papa_serving.contracts.identity import UserKey
from papa_serving.generator.engine import Engine, EngineConfig
from papa_serving.generator.job import AdapterKey, FinishedRows, HostAdapter, Job
from papa_serving.generator.slots import Slots
from papa_serving.generator.step_cost import LONGEST, StepCost
from torch import Tensor

from papa.denoiser import Denoiser
from papa.sampler import sample
from tests.generator.tiny import PATIENCE

ADAPT_FROM = 400


class Run:
    """One job and what became of it."""

    def __init__(
        self,
        name: str,
        count: int = 1,
        steps: int = 4,
        sampler: str = "ddim",
        seed: int = 0,
        weights: Tensor | None = None,
        explore: frozenset[int] = frozenset(),
        revision: str = "r1",
    ) -> None:
        user = UserKey("tenant", name)
        adapter = None if weights is None else HostAdapter(AdapterKey(user, revision), weights)
        self.job = Job(user, count, seed, sampler, steps, self._take, adapter, explore)
        self.samples: dict[int, Tensor] = {}
        self.error: PapaError | None = None
        self._ended = threading.Event()

    def _take(self, result: FinishedRows | PapaError) -> None:
        if isinstance(result, PapaError):
            self.error = result
        else:
            assert not set(result.indexes) & set(self.samples), "a row was delivered twice"
            self.samples.update(zip(result.indexes, result.samples, strict=True))
        if self.error or len(self.samples) == self.job.count:
            self._ended.set()

    @property
    def ended(self) -> bool:
        return self._ended.is_set()

    def wait(self) -> Run:
        assert self._ended.wait(PATIENCE)
        return self

    def expected(self, denoiser: Denoiser, index: int) -> Tensor:
        """The naive way: this row alone, from beginning to end."""
        job = self.job
        plain = job.adapter is None or index in job.explore
        adapters = None if plain else job.adapter.weights[None]
        return sample(denoiser, [job.seed + index], adapters, job.sampler, job.steps, ADAPT_FROM)[0]

    def assert_as_alone(self, denoiser: Denoiser) -> None:
        assert self.error is None
        for index in range(self.job.count):
            torch.testing.assert_close(self.samples[index], self.expected(denoiser, index), rtol=0, atol=1e-3)


def submit(engine: Engine, run: Run) -> Run:
    engine.door.reserve(run.job.user, run.job.count, run.job.steps)
    engine.door.submit(run.job)
    return run


class GivenCost(StepCost):
    """Steps that wait for a test tell nothing of what rows cost, so it is given: nothing, or as much each."""

    def __init__(self, overhead: float = LONGEST) -> None:
        super().__init__()
        self.overhead = overhead

    def record(self, rows: int, seconds: float) -> None:
        del rows, seconds


@contextmanager
def running(
    denoiser: Denoiser,
    slots: int = 4,
    max_rows: int = 64,
    max_queued_rows: int = 1024,
    cost: StepCost = GivenCost(),  # noqa: B008 - it has no state
) -> Iterator[Engine]:
    table = Slots(slots, denoiser.layout.size, denoiser.device, denoiser.dtype)
    engine = Engine(denoiser, table, EngineConfig(max_rows, max_queued_rows, ADAPT_FROM), cost)
    engine.start()
    try:
        yield engine
    finally:
        opening = getattr(denoiser, "open", None)
        if opening:
            opening()
        engine.stop(PATIENCE)
        assert not engine.alive
