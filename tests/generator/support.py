"""A tiny backbone, an engine and a generator over stores in memory, and shorthands that tests read by."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from papa_serving.contracts.errors import PapaError
from papa_serving.contracts.generation import GeneratedItem, GenerationDone, GenerationSpec
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.revisions import Revision
from papa_serving.generator.adapters import Adapters
from papa_serving.generator.engine import Engine, EngineConfig
from papa_serving.generator.generation import Defaults, Generator
from papa_serving.generator.items import Items
from papa_serving.generator.job import AdapterKey, FinishedRows, HostAdapter, Job
from papa_serving.generator.prompting import Prompter
from papa_serving.generator.scheduling.cost import LARGEST_OVERHEAD, StepCost
from papa_serving.generator.slots import Slots
from papa_serving.settings import Settings
from papa_serving.store.memory import MemoryItemStore, MemoryRevisionStore, MemoryState, MemoryUserDirectory
from torch import Tensor

from papa.adapter import Adapter, new_adapter
from papa.config import UpdateConfig
from papa.denoiser import Conditions, Denoiser
from papa.lora import LoraConfig
from papa.replay import Replay
from papa.revision_files import MANIFEST_FILE, Origin, digest, pack
from papa.sampler import sample
from papa.schedule import NoiseSchedule
from papa.taste import Head
from tests.papa.support import tiny_unet

# Tensors of 64 numbers: a second thread costs more than it brings.
torch.set_num_threads(1)

SHAPE = (1, 8, 8)
PATIENCE = 60.0
ADAPT_FROM = 400
GUIDANCE = 4.0


def tiny_denoiser(rank: int = 2) -> Denoiser:
    return Denoiser(tiny_unet(), NoiseSchedule.linear(), SHAPE, "epsilon", LoraConfig(rank=rank, alpha=2.0 * rank))


def random_weights(denoiser: Denoiser, seed: int, scale: float = 0.1) -> Tensor:
    return torch.randn(denoiser.layout.size, generator=torch.Generator().manual_seed(seed)) * scale


class GatedDenoiser(Denoiser):
    """Waits for a permit before each step and remembers the timesteps and the number of adapters of each."""

    def __init__(self) -> None:
        super().__init__(tiny_unet(), NoiseSchedule.linear(), SHAPE, "epsilon", LoraConfig(rank=2, alpha=4.0))
        self.steps: list[list[int]] = []
        self.adapted: list[int] = []
        self.failing = False
        self._arrivals = threading.Semaphore(0)
        self._permits = threading.Semaphore(0)
        self._stepped = threading.Condition()

    def epsilon(
        self, x: Tensor, t: Tensor, adapters: Tensor | None = None, conditions: Conditions | None = None
    ) -> Tensor:
        self._arrivals.release()
        assert self._permits.acquire(timeout=PATIENCE)
        with self._stepped:
            self.steps.append(t.tolist())
            self.adapted.append(0 if adapters is None else len(adapters))
            self._stepped.notify_all()
        if self.failing:
            raise RuntimeError("out of memory, says the test")
        return super().epsilon(x, t, adapters, conditions)

    def arrive(self) -> None:
        """Waits until one more step stands before the gate, with all the rows that it will have."""
        assert self._arrivals.acquire(timeout=PATIENCE)

    def advance(self, steps: int = 1) -> None:
        """Lets that many steps begin, and waits until they have."""
        with self._stepped:
            target = len(self.steps) + steps
            self._permits.release(steps)
            assert self._stepped.wait_for(lambda: len(self.steps) >= target, PATIENCE)

    def open(self) -> None:
        """Lets all further steps happen."""
        self._permits.release(1_000_000)


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
    engine.inbox.reserve(run.job.user, run.job.count, run.job.steps)
    engine.inbox.submit(run.job)
    return run


class GivenCost(StepCost):
    """Steps that wait for a test tell nothing of what rows cost, so it is given: nothing, or as much each."""

    def __init__(self, overhead: float = LARGEST_OVERHEAD) -> None:
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


Files = Mapping[str, bytes]


class CountingRevisions(MemoryRevisionStore):
    """Counts what is fetched; `hold` makes everybody who fetches wait."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: Counter[str] = Counter()
        self.hold = asyncio.Event()
        self.hold.set()

    async def get(self, user: UserKey, revision: str, name: str) -> bytes:
        self.fetched[revision] += name == MANIFEST_FILE
        await self.hold.wait()
        return await super().get(user, revision, name)


class World:
    """Stores, an engine over `denoiser`, and the room's front."""

    def __init__(
        self,
        denoiser: Denoiser,
        slots: int = 4,
        host_cache: int = 8,
        judges: bool = True,
        defaults: Defaults = Defaults(steps=4),  # noqa: B008 - it is frozen
        **engine: int,
    ) -> None:
        self.denoiser = denoiser
        self.state = MemoryState(Settings())
        self.users = MemoryUserDirectory(self.state)
        self.items = MemoryItemStore(self.state)
        self.revisions = CountingRevisions()
        self.slots = Slots(slots, denoiser.layout.size, denoiser.device, denoiser.dtype)
        self.engine = Engine(denoiser, self.slots, EngineConfig(adapt_from=ADAPT_FROM, clip=denoiser.clips, **engine))
        self.adapters = Adapters(self.users, self.revisions, denoiser, self.slots, host_cache, judges)
        self.generator = Generator(
            self.engine, self.adapters, Items(self.items, denoiser), defaults, Prompter(denoiser, GUIDANCE)
        )

    async def commit(
        self,
        user: UserKey,
        revision: str,
        weights: Tensor | None = None,
        parent: str = "",
        spoil: Callable[[dict[str, bytes]], Files] = dict,
        maker: Denoiser | None = None,
        head: Head | None = None,
        replay: Replay | None = None,
    ) -> Tensor:
        """Stores a revision and points at it. `spoil` changes its files after their sha256 was taken; `maker` is the
        denoiser whose layout and backbone it is made for."""
        maker = maker or self.denoiser
        weights = random_weights(maker, len(revision)) if weights is None else weights
        origin = Origin(backbone_hash=maker.backbone_hash, parent=parent, created_at=time.time())
        replay = new_adapter(maker).replay if replay is None else replay
        files = pack(Adapter(weights, replay, head=head), maker.layout, UpdateConfig(), origin)
        await self.revisions.put(user, revision, spoil(files))
        known = self.state.user(user)
        now = time.time()
        known.lineage[revision] = Revision(revision, parent, now, digest(files[MANIFEST_FILE]), 1, 1, accepted_at=now)
        known.current = revision
        return weights


def not_finite(denoiser: Denoiser) -> Tensor:
    weights = random_weights(denoiser, 1)
    weights[3] = torch.nan
    return weights


ANN = UserKey("tenant", "ann")


def spec(user: UserKey = ANN, count: int = 2, **fields: object) -> GenerationSpec:
    defaults = {"request_id": "q", "generation_id": f"g-{user.user}", "seed": 11}
    return GenerationSpec(user=user, count=count, **(defaults | fields))  # type: ignore[arg-type]


async def everything(world: World, asked: GenerationSpec) -> tuple[list[GeneratedItem], GenerationDone]:
    items: list[GeneratedItem] = []
    async for event in world.generator.run(asked):
        if isinstance(event, GenerationDone):
            return items, event
        for item in event.items:
            assert (await world.items.get(asked.user, item.item_id)).seed == item.seed, "stored before it is reported"
        items += event.items
    raise AssertionError("a generation ended without its end")
