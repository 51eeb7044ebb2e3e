"""Step-level continuous batching: one thread owns torch and moves every running row on by one denoising step at a time.

Between two steps, finished and cancelled rows leave and waiting rows join. A generation waits for room in the batch,
never for another generation to end.
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
from papa_serving import metrics
from papa_serving.contracts.errors import PapaError
from papa_serving.contracts.identity import UserKey
from papa_serving.generator.batch import Batch
from papa_serving.generator.embedding import Embedder
from papa_serving.generator.job import Job, Row
from papa_serving.generator.judging import Judged, like_probabilities
from papa_serving.generator.scheduling.cost import StepCost, Throughput
from papa_serving.generator.scheduling.inbox import Inbox, ended
from papa_serving.generator.scheduling.scheduler import Scheduler
from papa_serving.generator.slots import Slots

_log = logging.getLogger(__name__)

FAILURES_UNTIL_DEAD = 3
"""Steps that may fail one after another before the engine gives up and its replica is replaced."""


@dataclass(frozen=True)
class EngineConfig:
    """`max_rows` run in one step, `max_queued_rows` wait (of one user half at most, see Inbox); `adapt_from` is K of
    EPAPA; `clip` is for pixel backbones."""

    max_rows: int = 64
    max_queued_rows: int = 1024
    adapt_from: int = 0
    clip: bool = True


class Engine:
    """The loop. While it runs, no other thread may use the denoiser; work reaches it through its `inbox` and its
    `embedder`.

    `num_timesteps` is the backbone's T, the most steps that a job may have. `cost` learns what rows cost.
    """

    def __init__(self, denoiser: Denoiser, slots: Slots, config: EngineConfig, cost: StepCost | None = None) -> None:
        self.num_timesteps = denoiser.schedule.num_timesteps
        self._denoiser, self._slots = denoiser, slots
        adapt_from = denoiser.schedule.adapted_from(config.adapt_from)
        self._batch = Batch(denoiser, slots, adapt_from, config.clip)
        self._scheduler = Scheduler(config.max_rows, slots.capacity, adapt_from, cost or StepCost())
        self._throughput = Throughput()
        self.inbox = Inbox(config.max_queued_rows, self._throughput)
        self.embedder = Embedder(denoiser, self.inbox.wake)
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self, timeout: float = 10.0) -> None:
        """Ends the thread after the step in progress; jobs that are left get GeneratorUnavailable."""
        self.inbox.stop()
        self._thread.join(timeout)

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @torch.inference_mode()
    def _run(self) -> None:
        failures = 0
        metrics.ENGINES_RUNNING.set(1)
        try:
            while failures < FAILURES_UNTIL_DEAD and self.inbox.wait(self._busy):
                try:
                    self._round()
                    failures = 0
                except Exception:
                    failures += 1
                    _log.exception("a denoising step failed", extra={"rows": len(self._batch.rows)})
                    self._fail({row.job for row in self._batch.rows}, _failed())
        finally:
            metrics.ENGINES_RUNNING.set(0)
            left = set(self.inbox.close())
            self.embedder.close(ended())
            self._fail(left | self._scheduler.jobs() | {row.job for row in self._batch.rows}, ended())

    @property
    def _busy(self) -> bool:
        return bool(self._scheduler or self._batch.rows or self.embedder)

    def _round(self) -> None:
        """Lets rows leave and join, then takes one step, then embeds a few of the pictures that wait."""
        arrived, cancelled = self.inbox.take()
        for job in arrived:
            self._scheduler.push(job.rows(tuple(self._denoiser.schedule.plan(job.steps).tolist())))
        if cancelled:
            self._batch.leave(lambda row: row.job.cancelled)
            self.inbox.left(self._scheduler.drop(lambda job: job.cancelled))
        if self._scheduler or self._batch.rows:
            self._change()
        if self._batch.rows:
            self._step()
        self.embedder.work()
        metrics.ENGINE_RUNNING_ROWS.set(len(self._batch.rows))
        metrics.ENGINE_SLOTS_USED.set(len(self._slots))

    def _change(self) -> None:
        """Parks and admits rows as the scheduler decides."""
        park, admit = self._scheduler.next(self._batch.rows)
        self.inbox.left(_owners(admit), came_back=_owners(park))
        for row in admit:
            row.job.started_at = row.job.started_at or time.monotonic()
        try:
            if park:
                self._batch.park(park)
            if admit:
                self._batch.join(admit)
        except Exception:
            self._fail({row.job for row in admit}, _failed())
            raise

    def _step(self) -> None:
        rows = list(self._batch.rows)
        metrics.ENGINE_RUNNING_ROWS.set(len(rows))  # before the step: one that hangs must show what it holds
        metrics.ENGINE_STEP_ROWS.observe(len(rows))
        metrics.ENGINE_STEP_USERS.observe(self._batch.adapters)
        start = time.perf_counter()
        metrics.ENGINE_STEP_STARTED.set_to_current_time()
        try:
            finished, samples = self._batch.step()
            if samples is not None:
                self._hand_over(finished, samples)
        finally:
            metrics.ENGINE_STEP_STARTED.set(0)
        seconds = time.perf_counter() - start
        self._throughput.record(len(rows), seconds)
        self._scheduler.stepped(rows, seconds)
        metrics.ENGINE_STEP_SECONDS.observe(seconds)

    def _hand_over(self, finished: list[Row], samples: Tensor) -> None:
        """Delivers finished rows. The batch no longer holds them, so a failure must reach their jobs from here."""
        try:
            self._deliver(finished, samples)
        except Exception:
            self._fail({row.job for row in finished}, _failed())
            raise

    def _deliver(self, rows: list[Row], samples: Tensor) -> None:
        """Settles each job's finished rows; what was rejected has its successors queued at once. Shape: samples
        [len(rows), C, H, W]."""
        of_job: dict[Job, list[int]] = {}
        for index, row in enumerate(rows):
            if not row.job.cancelled:
                of_job.setdefault(row.job, []).append(index)
        judged = like_probabilities(self._denoiser, of_job, samples)
        on_host = samples.float().cpu()
        for job, mine in of_job.items():
            said = judged.get(job, Judged([None] * len(mine), []))
            result, successors = job.settle([rows[i] for i in mine], said.chances, on_host[mine], said.typical)
            self._scheduler.push(successors)
            self.inbox.left({}, came_back=_owners(successors))
            if result is not None:
                job.deliver(result)

    def _fail(self, jobs: Set[Job], error: PapaError) -> None:
        self._batch.leave(lambda row: row.job in jobs)
        self.inbox.left(self._scheduler.drop(jobs.__contains__))
        for job in jobs:
            job.deliver(error)


def _owners(rows: Iterable[Row]) -> Counter[UserKey]:
    return Counter(row.job.user for row in rows)


def _failed() -> PapaError:
    return PapaError("the engine failed at a denoising step; its log says why")
