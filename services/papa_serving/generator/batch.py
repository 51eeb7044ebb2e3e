"""The running batch: independent rows that take one denoising step at a time together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from papa.denoiser import Conditions, Denoiser
from papa.sampler import Rows
from papa_serving.generator.job import HostAdapter, Job, Row
from papa_serving.generator.slots import Slots


class Batch:
    """Rows in the order [with adapter, without], because the denoiser takes weights for the first rows of a batch.

    A row is with its adapter while t ≥ `adapt_from`, the timestep of K; crossing K it gives up its slot. Slots are
    taken and given back here alone. Belongs to the engine's thread.
    """

    def __init__(self, denoiser: Denoiser, slots: Slots, adapt_from: int, clip: bool) -> None:
        self.rows: list[Row] = []
        self._denoiser = denoiser
        self._slots = slots
        self._adapt_from = adapt_from
        self._clip = clip
        self._state: Rows | None = None
        self._gathered: tuple[list[HostAdapter | None], Tensor | None] = ([], None)
        self._conditioned: tuple[list[Job], Conditions | None] = ([], None)

    @property
    def adapters(self) -> int:
        """Distinct adapters in the step to come."""
        return len({row.slot for row in self.rows if row.slot})

    def join(self, rows: Sequence[Row]) -> None:
        """Adds rows, each with a slot if it needs one; parked ones go on where they stopped. All of them, or none.

        Raises RuntimeError when the slots do not suffice.
        """
        old = [] if self._state is None else [self._state]
        resumed = [row for row in rows if row.parked is not None]
        groups: dict[tuple[str, int], list[Row]] = {}
        for row in rows:
            if row.parked is None:
                groups.setdefault((row.job.sampler, row.job.steps), []).append(row)
        try:
            for row in rows:
                self._acquire(row)
            fresh = [self._start(group, *key) for key, group in groups.items()]
            self._state = Rows.concat([*old, *(row.parked for row in resumed if row.parked is not None), *fresh])
        except BaseException:
            for row in rows:
                self._release(row)
            raise
        for row in resumed:
            row.parked = None
        self.rows += resumed + [row for group in groups.values() for row in group]
        self._keep(range(len(self.rows)))

    def leave(self, gone: Callable[[Row], bool]) -> list[Row]:
        """Removes the rows for which `gone` holds, and their state."""
        leaving = [row for row in self.rows if gone(row)]
        if leaving:
            for row in leaving:
                self._release(row)
            self._keep([i for i, row in enumerate(self.rows) if not gone(row)])
        return leaving

    def park(self, rows: Sequence[Row]) -> None:
        """Removes rows and returns them with their state, so that they can join again."""
        assert self._state is not None
        for row in rows:
            row.parked = self._state.select(self._index([self.rows.index(row)]))
        parked = set(rows)
        self.leave(parked.__contains__)

    def step(self) -> tuple[list[Row], Tensor | None]:
        """Takes one denoising step of every row. Returns the finished rows, which have left, and their samples.

        Shape: samples [k, C, H, W].
        """
        assert self._state is not None
        state = self._state
        eps = self._denoiser.epsilon(state.x, state.t, self._weights(), self._conditions())
        state.advance(self._denoiser.schedule, eps, self._noise(), self._clip)
        crossed = False
        for row in self.rows:
            row.position += 1
            row.stint += 1
            if row.slot and (row.done or not row.wants_adapter(self._adapt_from)):
                self._release(row)
                crossed = True
        done = [i for i, row in enumerate(self.rows) if row.done]
        finished, samples = [self.rows[i] for i in done], state.x[done] if done else None
        if done or crossed:
            self._keep([i for i, row in enumerate(self.rows) if not row.done])
        return finished, samples

    def _start(self, rows: list[Row], sampler: str, steps: int) -> Rows:
        shape = self._denoiser.sample_shape
        x = torch.stack([row.noise.normal(shape) for row in rows]).to(self._denoiser.device)
        return Rows.start(x, sampler, self._denoiser.schedule.plan(steps))

    def _noise(self) -> Tensor | None:
        """Each ancestral row's own next noise; zeros for the others; None when there are none."""
        shape, ancestral = self._denoiser.sample_shape, [row.job.sampler == "ddpm" for row in self.rows]
        if not any(ancestral):
            return None
        noise = torch.zeros(len(self.rows), *shape)
        for i, row in enumerate(self.rows):
            if ancestral[i]:
                noise[i] = row.noise.normal(shape)
        return noise.to(self._denoiser.device)

    def _index(self, indexes: list[int]) -> Tensor:
        return torch.tensor(indexes, device=self._denoiser.device)

    def _acquire(self, row: Row) -> None:
        if row.adapter is not None and row.wants_adapter(self._adapt_from):
            slot = self._slots.acquire(row.adapter)
            if slot is None:
                raise RuntimeError(f"{len(self._slots)} slots are held by other rows")
            row.slot = slot

    def _release(self, row: Row) -> None:
        if row.slot:
            assert row.adapter is not None
            self._slots.release(row.adapter.key)
            row.slot = 0

    def _keep(self, indexes: Iterable[int]) -> None:
        """Keeps these rows alone, those with an adapter first."""
        order = sorted(indexes, key=lambda i: not self.rows[i].slot)
        if order != list(range(len(self.rows))):
            assert self._state is not None
            self._state = self._state.select(self._index(order)) if order else None
            self.rows = [self.rows[i] for i in order]
        if not self.rows:
            # An idle engine keeps nobody's weights outside the slots, from where a deleted user's are wiped.
            self._gathered = ([], None)
            self._conditioned = ([], None)

    def _conditions(self) -> Conditions | None:
        """The condition of each row, concatenated again when the rows have changed."""
        jobs = [row.job for row in self.rows]
        if jobs != self._conditioned[0]:
            each = [job.conditions for job in jobs if job.conditions is not None]
            self._conditioned = (jobs, Conditions.concat(each) if each else None)
        return self._conditioned[1]

    def _weights(self) -> Tensor | None:
        """The adapters of the first rows, gathered again when they have changed. Shape: [m, P]."""
        due = [row for row in self.rows if row.slot]
        adapters = [row.adapter for row in due]
        if adapters != self._gathered[0]:
            self._gathered = (adapters, self._slots.gather([row.slot for row in due]) if due else None)
        return self._gathered[1]
