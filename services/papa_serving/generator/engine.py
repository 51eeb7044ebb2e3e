"""Step-level continuous batching: one thread owns torch and moves every running row on by one denoising step at a time.

Between two steps finished and cancelled rows leave and waiting ones join, so that a generation never waits for another
to end; only for a place.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Iterable, Set
from dataclasses import dataclass

import torch
from torch import Tensor

from papa.denoiser import Denoiser
from papa.sampler import timesteps
from papa_serving import metrics
from papa_serving.contracts.errors import PapaError
from papa_serving.contracts.identity import UserKey
from papa_serving.generator.batch import Batch
from papa_serving.generator.door import Door, ended
from papa_serving.generator.fair_queue import FairQueue
from papa_serving.generator.job import FinishedRows, Job, Row
from papa_serving.generator.pace import Pace
from papa_serving.generator.shares import Shares
from papa_serving.generator.slots import Slots
from papa_serving.generator.step_cost import StepCost

_log = logging.getLogger(__name__)

FAILURES_UNTIL_DEAD = 3
"""Steps that may fail one after another before the engine gives up and its replica is replaced."""


@dataclass(frozen=True)
class EngineConfig:
    """`max_rows` run in one step, `max_queued_rows` wait (of one user half at most, see Door); `adapt_from` is K of
    EPAPA; `clip` for pixel backbones."""

    max_rows: int = 64
    max_queued_rows: int = 1024
    adapt_from: int = 0
    clip: bool = True


class Engine:
    """The loop. While it runs, the denoiser is its alone; work reaches it through its `door`.

    `num_timesteps` is the backbone's T, the most steps that a job may have. `cost` learns what rows cost.
    """

    def __init__(self, denoiser: Denoiser, slots: Slots, config: EngineConfig, cost: StepCost | None = None) -> None:
        self.num_timesteps = denoiser.schedule.num_timesteps
        self._slots = slots
        self._config = config
        self._batch = Batch(denoiser, slots, config.adapt_from, config.clip)
        self._queue = FairQueue()
        self._pace, self._cost = Pace(), cost or StepCost()
        self._shares = Shares(self._cost)
        self.door = Door(config.max_queued_rows, self._pace)
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self, timeout: float = 10.0) -> None:
        """Ends the thread after the step in progress; jobs that are left get GeneratorUnavailable."""
        self.door.stop()
        self._thread.join(timeout)

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @torch.inference_mode()
    def _run(self) -> None:
        failures = 0
        try:
            while failures < FAILURES_UNTIL_DEAD and self.door.wait(bool(self._queue or self._batch.rows)):
                try:
                    self._round()
                    failures = 0
                except Exception:
                    failures += 1
                    _log.exception("a denoising step failed", extra={"rows": len(self._batch.rows)})
                    self._fail({row.job for row in self._batch.rows}, _failed())
        finally:
            left = set(self.door.close())
            self._fail(left | self._queue.jobs() | {row.job for row in self._batch.rows}, ended())

    def _round(self) -> None:
        """Lets rows leave and join, then takes one step."""
        arrived, cancelled = self.door.take()
        for job in arrived:
            self._queue.push(job.rows(tuple(timesteps(self.num_timesteps, job.steps).tolist())))
        if cancelled:
            self._batch.leave(lambda row: row.job.cancelled)
            self.door.left(self._queue.drop(lambda job: job.cancelled))
        if self._queue or self._batch.rows:
            self._share()
        if self._batch.rows:
            self._step()
        metrics.ENGINE_RUNNING_ROWS.set(len(self._batch.rows))
        metrics.ENGINE_SLOTS_USED.set(len(self._slots))

    def _share(self) -> None:
        """Gives the places to whom they are due."""
        now = time.monotonic()
        limits = self._shares.limits(self._queue.wanted(self._batch.rows), now)
        if paused := self._queue.beyond(self._batch.rows, limits):
            self._batch.park(paused)
            self._queue.pause(paused)
        if not self._queue:
            return
        places = self._config.max_rows - len(self._batch.rows)
        if parked := self._queue.displaced(self._batch.rows, places, self._seatable, limits):
            self._batch.park(parked)
            self._queue.park(parked)
        rows = self._queue.admit(places + len(parked), self._batch.rows, self._seat, limits)
        self.door.left(_owners(rows), came_back=_owners([*paused, *parked]))
        if not rows:
            return
        for row in rows:
            row.job.started_at = row.job.started_at or now
        try:
            self._batch.join(rows)
        except Exception:
            self._fail({row.job for row in rows}, _failed())
            raise

    def _seatable(self, row: Row) -> bool:
        """Whether a slot can be had for the row, if it needs one."""
        if not row.wants_adapter(self._config.adapt_from):
            return True
        return row.adapter is not None and self._slots.has_room(row.adapter.key)

    def _seat(self, row: Row) -> bool:
        """Takes a slot for the row, if it needs one."""
        if not row.wants_adapter(self._config.adapt_from):
            return True
        assert row.adapter is not None
        slot = self._slots.acquire(row.adapter)
        row.slot = slot or 0
        return slot is not None

    def _step(self) -> None:
        rows = len(self._batch.rows)
        metrics.ENGINE_STEP_ROWS.observe(rows)
        metrics.ENGINE_STEP_USERS.observe(self._batch.adapters)
        owners = _owners(self._batch.rows)
        start = time.perf_counter()
        finished, samples = self._batch.step()
        if samples is not None:
            _deliver(finished, samples.float().cpu())
        seconds = time.perf_counter() - start
        self._pace.record(rows, seconds)
        self._cost.record(rows, seconds)
        self._shares.ran(owners, time.monotonic())
        metrics.ENGINE_STEP_SECONDS.observe(seconds)

    def _fail(self, jobs: Set[Job], error: PapaError) -> None:
        self._batch.leave(lambda row: row.job in jobs)
        self.door.left(self._queue.drop(jobs.__contains__))
        for job in jobs:
            job.deliver(error)


def _owners(rows: Iterable[Row]) -> Counter[UserKey]:
    return Counter(row.job.user for row in rows)


def _failed() -> PapaError:
    return PapaError("the engine failed at a denoising step; its log says why")


def _deliver(rows: list[Row], samples: Tensor) -> None:
    """Each job's finished rows in one message. Shape: samples [len(rows), C, H, W], on the host."""
    places: dict[Job, list[int]] = {}
    for place, row in enumerate(rows):
        places.setdefault(row.job, []).append(place)
    for job, mine in places.items():
        job.deliver(FinishedRows(tuple(rows[i].index for i in mine), samples[mine]))
