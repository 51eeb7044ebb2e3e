"""Users with revisions, in memory: made as a trainer makes them, and spoilt as only a test would."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping

import torch
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.revisions import Revision
from papa_serving.generator.adapters import Adapters
from papa_serving.generator.engine import Engine, EngineConfig
from papa_serving.generator.generation import Defaults, Generator
from papa_serving.generator.pictures import Pictures
from papa_serving.generator.prompting import Prompter
from papa_serving.generator.slots import Slots
from papa_serving.settings import Settings
from papa_serving.store.memory_items import MemoryItemStore
from papa_serving.store.memory_revisions import MemoryRevisionStore
from papa_serving.store.memory_state import MemoryState
from papa_serving.store.memory_users import MemoryUserDirectory
from torch import Tensor

from papa.adapter import MANIFEST_FILE, Origin, digest, pack
from papa.config import UpdateConfig
from papa.denoiser import Denoiser
from papa.update import Adapter, new_adapter
from tests.generator.driving import ADAPT_FROM
from tests.generator.tiny import random_weights

Files = Mapping[str, bytes]
GUIDANCE = 4.0


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

    def __init__(self, denoiser: Denoiser, slots: int = 4, host_cache: int = 8, **engine: int) -> None:
        self.denoiser = denoiser
        self.state = MemoryState(Settings())
        self.users = MemoryUserDirectory(self.state)
        self.items = MemoryItemStore(self.state)
        self.revisions = CountingRevisions()
        self.slots = Slots(slots, denoiser.layout.size, denoiser.device, denoiser.dtype)
        self.engine = Engine(denoiser, self.slots, EngineConfig(adapt_from=ADAPT_FROM, clip=denoiser.clips, **engine))
        self.adapters = Adapters(self.users, self.revisions, denoiser, self.slots, host_cache)
        self.generator = Generator(
            self.engine, self.adapters, self.items, Defaults(steps=4), Prompter(denoiser, GUIDANCE), Pictures(denoiser)
        )

    async def commit(
        self,
        user: UserKey,
        revision: str,
        weights: Tensor | None = None,
        parent: str = "",
        spoil: Callable[[dict[str, bytes]], Files] = dict,
        maker: Denoiser | None = None,
    ) -> Tensor:
        """Stores a revision and points at it. `spoil` changes its files after their sha256 was taken; `maker` is the
        denoiser whose layout and backbone it is made for."""
        maker = maker or self.denoiser
        weights = random_weights(maker, len(revision)) if weights is None else weights
        origin = Origin(backbone=maker.backbone, parent=parent, created_at=time.time())
        replay = new_adapter(maker).replay
        files = pack(Adapter(weights, replay), maker.layout, UpdateConfig(), origin)
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
