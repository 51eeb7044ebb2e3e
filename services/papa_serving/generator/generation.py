"""One generation from the validated request to stored items: resolve, queue, denoise, encode, store, deliver."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass

from papa.denoiser import Conditions, NotFiniteError
from papa.noise import VERSION
from papa.sampler import SAMPLERS
from papa.selection import Rule, Served, teaching_share
from papa_serving import metrics, tracing
from papa_serving.contracts.errors import DeadlineExceeded, InvalidRequest, PapaError, Violation
from papa_serving.contracts.generation import (
    FinishedItems,
    GeneratedItem,
    GenerationDone,
    GenerationSpec,
    GenerationTimings,
    ImageEncoding,
    RenderedItem,
)
from papa_serving.contracts.identity import UserKey
from papa_serving.generator.adapters import Adapters, Resolved
from papa_serving.generator.engine import Engine
from papa_serving.generator.items import Items
from papa_serving.generator.job import FinishedRows, Job
from papa_serving.generator.prompting import Prompter
from papa_serving.generator.served_latency import ServedLatency

Event = FinishedItems | GenerationDone


@dataclass(frozen=True)
class Defaults:
    """The values of a request that names none."""

    sampler: str = "ddim"
    steps: int = 25
    exploration: float = 0.0
    teaching: float = 0.0
    overdraw: float = 1.0


class _Results:
    """Results that the engine has delivered and the caller has not taken yet; `drawn` is that of the newest result."""

    def __init__(self) -> None:
        self.drawn = 0
        self._queue: asyncio.Queue[FinishedRows | PapaError] = asyncio.Queue()

    def put(self, result: FinishedRows | PapaError) -> None:
        """Takes what the engine delivers, on the loop."""
        if isinstance(result, FinishedRows):
            self.drawn = result.drawn
        self._queue.put_nowait(result)

    async def settled(self) -> FinishedRows:
        """The next settled items. Raises what the engine reports."""
        result = await self._queue.get()
        if isinstance(result, PapaError):
            raise result
        return result


@dataclass(eq=False)
class _Run:
    """One generation while it runs."""

    job: Job
    resolved: Resolved | None
    results: _Results

    @property
    def revision(self) -> str:
        """The revision that makes the items; "" when the base makes all of them."""
        return "" if self.resolved is None or len(self.job.explore) == self.job.count else self.resolved.record.name

    def exploring(self, served: Served) -> bool:
        """Whether the base made the item although there is an adapter."""
        return self.resolved is not None and self.job.explores(served.candidate)

    def revision_of(self, served: Served) -> str:
        """The revision that made one item; "" for the base."""
        return "" if self.exploring(served) else self.revision


class Generator:
    """Runs generations on the engine: what the deployment calls. Belongs to one event loop."""

    def __init__(
        self, engine: Engine, adapters: Adapters, items: Items, defaults: Defaults, prompter: Prompter
    ) -> None:
        self._engine = engine
        self._prompter = prompter
        self._adapters = adapters
        self._items = items
        self._defaults = defaults
        self._served_latency = ServedLatency()

    def change(self, defaults: Defaults, guidance: float) -> None:
        """Sets the defaults of generations that begin from now on; `guidance` is the default of prompts."""
        self._defaults = defaults
        self._prompter.guidance = guidance

    async def run(self, spec: GenerationSpec) -> AsyncGenerator[Event]:
        """Finished items in groups as they finish, each stored already, then GenerationDone.

        A group without items tells how much is drawn by now.

        Raises QueueFull, DeadlineExceeded, RevisionNotFound, RevisionDamaged, UserDeleted, StorageUnavailable. Closing
        the iterator frees the generation's rows.
        """
        with _counted(), _traced(spec) as span:
            async with self._started(spec) as run:
                span.note({"papa.revision": run.revision, "papa.sampler": run.job.sampler, "papa.steps": run.job.steps})
                last = False
                while not last:
                    async with _deadline(spec):
                        rows = await run.results.settled()
                        items = await self._finished(spec, run, rows)
                    last = rows.last
                    # Of a caller who reads slowly, what is drawn by now, and not when these items were settled: what
                    # follows may never be read, and is charged by this.
                    yield FinishedItems(items, run.results.drawn if items else rows.drawn)
                if run.resolved and run.revision:
                    metrics.SERVED_REVISION_AGE.observe(max(0.0, time.time() - run.resolved.record.created_at))
                if run.resolved and run.resolved.adapter.head is not None:
                    metrics.ACCEPTANCE.observe(rows.accepted / rows.drawn)
                yield GenerationDone(run.revision, _timings(run), VERSION, rows.drawn, rows.accepted)

    async def render(self, user: UserKey, item_id: str, encoding: ImageEncoding) -> RenderedItem:
        """Encodes a stored item again. Raises ItemNotFound, StorageUnavailable."""
        return await self._items.render(user, item_id, encoding)

    @asynccontextmanager
    async def _started(self, spec: GenerationSpec) -> AsyncIterator[_Run]:
        """Reserves rows, finds the adapter and submits the job; frees the rows that are left at the end."""
        sampler = spec.sampler or self._defaults.sampler
        steps = min(spec.steps or self._defaults.steps, self._engine.num_timesteps)
        if sampler not in SAMPLERS:
            raise InvalidRequest([Violation("sampler", f"must be one of {', '.join(SAMPLERS)}")])
        if spec.min_like_probability and not self._adapters.judges:
            raise InvalidRequest(
                [Violation("min_like_probability", "generator.like_probability is off at this server")]
            )
        self._engine.inbox.reserve(spec.user, spec.count, steps)
        try:
            async with _deadline(spec):
                with tracing.span("find adapter"):
                    resolved = await self._adapters.resolve(spec.user, spec.revision)
                conditions = await self._prompter.conditions(spec)
        except BaseException:
            self._engine.inbox.release(spec.user, spec.count)
            raise
        run = self._prepared(spec, sampler, steps, resolved, conditions)
        self._engine.inbox.submit(run.job)
        try:
            yield run
        finally:
            self._engine.inbox.cancel(run.job)

    def _prepared(
        self, spec: GenerationSpec, sampler: str, steps: int, resolved: Resolved | None, conditions: Conditions | None
    ) -> _Run:
        loop = asyncio.get_running_loop()
        results = _Results()
        share = spec.exploration if spec.exploration >= 0 else self._defaults.exploration
        job = Job(
            user=spec.user,
            count=spec.count,
            seed=spec.seed,
            sampler=sampler,
            steps=steps,
            deliver=lambda result: _hand_over(loop, results, result),
            adapter=resolved.adapter if resolved else None,
            explore=explored(spec.count, share),
            teach=explored(spec.count, self._teaching(spec, resolved)),
            conditions=conditions,
            rule=Rule(spec.overdraw or self._defaults.overdraw, spec.min_like_probability),
        )
        return _Run(job, resolved, results)

    def _teaching(self, spec: GenerationSpec, resolved: Resolved | None) -> float:
        """The share of the items that may teach; 0 without a head, or where the request sets its exploration."""
        if resolved is None or resolved.adapter.head is None or spec.exploration >= 0:
            return 0.0
        return teaching_share(self._defaults.teaching, resolved.labels)

    async def _finished(self, spec: GenerationSpec, run: _Run, rows: FinishedRows) -> tuple[GeneratedItem, ...]:
        if not rows.served:
            return ()
        self._check_finite(run, rows)
        try:
            items = await self._items.keep(spec, rows, run)
        except NotFiniteError as error:
            raise self._not_finite(run, rows.served) from error
        if run.resolved and any(item.revision for item in items):
            self._served_latency.observe(run.resolved.adapter.key, run.resolved.record)
        return items

    def _check_finite(self, run: _Run, rows: FinishedRows) -> None:
        """Raises RevisionDamaged when an adapter made samples that are not finite; the next generation falls back."""
        finite = rows.samples.isfinite().flatten(1).all(dim=1).tolist()
        bad = [served for served, good in zip(rows.served, finite, strict=True) if not good]
        if bad:
            raise self._not_finite(run, bad)

    def _not_finite(self, run: _Run, bad: Sequence[Served]) -> PapaError:
        """The error for those items: of the revision where it made one of them, else of the backbone."""
        if run.resolved is None or not any(run.revision_of(served) for served in bad):
            return PapaError("the backbone made pictures that are not finite: try another seed, or tell the operator")
        return self._adapters.refuse_output(run.resolved)


def explored(count: int, share: float) -> frozenset[int]:
    """The indexes of the items that are drawn from the base, to discover further tastes.

    They are round(share · count) indexes, spread evenly over 0 to count − 1.
    """
    chosen = round(share * count)
    return frozenset((2 * i + 1) * count // (2 * chosen) for i in range(chosen))


def _hand_over(
    loop: asyncio.AbstractEventLoop,
    results: _Results,
    result: FinishedRows | PapaError,
) -> None:
    """Passes a result from the engine's thread to the event loop; dropped when the loop is closed."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(results.put, result)


def _timings(run: _Run) -> GenerationTimings:
    now, job = time.monotonic(), run.job
    loaded = run.resolved.load_seconds if run.resolved else 0.0
    timings = GenerationTimings(job.started_at - job.submitted_at, now - job.started_at, loaded)
    for stage in ("queued", "denoising", "adapter_load"):
        metrics.GENERATION_STAGE_SECONDS.labels(stage).observe(getattr(timings, stage))
    started, ended = time.time() - timings.denoising, time.time()
    tracing.record("queued", started - timings.queued, started)
    tracing.record("denoising", started, ended)
    return timings


def _traced(spec: GenerationSpec) -> AbstractContextManager[tracing.Span]:
    """A span below the gateway's call."""
    tracing.continue_from(spec.traceparent)
    attributes: dict[str, tracing.Value] = {"papa.generation_id": spec.generation_id, "papa.items": spec.count}
    return tracing.span("generate", "server", attributes=attributes)


@asynccontextmanager
async def _deadline(spec: GenerationSpec) -> AsyncIterator[None]:
    """Raises DeadlineExceeded once the spec's deadline has passed."""
    seconds = spec.deadline - time.monotonic() if spec.deadline else None
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise DeadlineExceeded("the deadline passed before all items were done") from error


@contextmanager
def _counted() -> Iterator[None]:
    """Counts the generation by its outcome."""
    outcome = "cancelled"
    try:
        yield
        outcome = "done"
    except PapaError as error:
        outcome = error.reason
        raise
    except Exception:
        outcome = PapaError.reason
        raise
    finally:
        metrics.GENERATIONS.labels(outcome).inc()
