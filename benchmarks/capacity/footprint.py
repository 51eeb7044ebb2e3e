"""Bytes, measured: of a revision with a full memory of labels, and of what Redis keeps."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import redis
import torch
from papa_serving.contracts.feedback import FeedbackEvent, FeedbackLog, LoggedEvent, UserBatch
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.items import StoredItem
from papa_serving.contracts.revisions import Revision
from papa_serving.contracts.samples import pack_sample
from papa_serving.feedback import open_log
from papa_serving.local.redis_process import RedisProcess
from papa_serving.settings import RedisSettings, Settings
from papa_serving.store import open_items

from papa.adapter import Adapter, new_adapter
from papa.config import DEFAULT_LORA, DEFAULT_UPDATE
from papa.denoiser import Denoiser, load_denoiser
from papa.replay import Replay
from papa.revision_files import STATE_FILE, Origin, pack

USERS, EACH = 500, 10
REVISION = "000001-0123abcd"


def measured(backbone: str) -> dict[str, float]:
    """Bytes by what they are of."""
    denoiser = load_denoiser(backbone, DEFAULT_LORA)
    return {**_revision(denoiser), **asyncio.run(_redis(denoiser.sample_shape))}


def _revision(denoiser: Denoiser) -> dict[str, float]:
    kept = DEFAULT_UPDATE.replay_likes + DEFAULT_UPDATE.replay_dislikes
    samples = torch.randint(0, 256, (kept, *denoiser.sample_shape), dtype=torch.uint8)
    features = torch.zeros(kept, denoiser.feature_size, dtype=torch.float16)
    weights = new_adapter(denoiser).weights
    adapter = Adapter(weights, Replay(samples, torch.ones(kept), features), weights)
    files = pack(adapter, denoiser.layout, DEFAULT_UPDATE, Origin(denoiser.backbone_hash, "", 0.0))
    return {
        "adapter on the device": 4.0 * denoiser.layout.size,
        "revision, replay full": float(sum(map(len, files.values()))),
        "of it, replay and iterate": float(len(files[STATE_FILE])),
    }


async def _redis(shape: tuple[int, int, int]) -> dict[str, float]:
    """Measures the growth of `used_memory` by items first, then by events about them."""
    with tempfile.TemporaryDirectory() as folder, RedisProcess(Path(folder) / "redis") as server:
        settings = Settings(data_dir=Path(folder), redis=RedisSettings(url=server.url))
        with redis.Redis.from_url(server.url) as client:
            items, log = open_items(settings), open_log(settings)
            start = _used(client)
            sample = pack_sample(np.zeros(shape, np.uint8))
            for user in map(_key, range(USERS)):
                await items.put(user, [StoredItem(name, sample, REVISION, "g", 0) for name in _items(user)])
            with_items = _used(client)
            for user in map(_key, range(USERS)):
                await log.append([FeedbackEvent(f"event-{name}", user, 1.0, item_id=name) for name in _items(user)])
            with_events = _used(client)
            await _commit(log)
            after = _used(client)
            await items.close()
            await log.close()
    return {
        "item in Redis": (with_items - start) / (USERS * EACH),
        "waiting event in Redis": (with_events - with_items) / (USERS * EACH),
        # State, lineage and the event ids that are remembered.
        "user after one update in Redis": (after - with_items) / USERS,
    }


async def _commit(log: FeedbackLog) -> None:
    """A first revision of every user."""
    for partition in range(log.partitions):
        lease = await log.acquire(partition, "bench", 60.0)
        assert lease is not None
        batches: dict[UserKey, list[LoggedEvent]] = {}
        for event in await log.read(lease, "", USERS * EACH):
            batches.setdefault(event.user, []).append(event)
        for user, events in batches.items():
            revision = Revision(REVISION, "", 0.0, "0" * 64, EACH, EACH, 1, EACH)
            await log.commit(lease, UserBatch(user, tuple(events)), revision)


def _key(number: int) -> UserKey:
    return UserKey("default", f"user-{number:08d}")


def _items(user: UserKey) -> list[str]:
    """Item ids as long as those that the service makes."""
    return [f"{user.user}-{number}-{'x' * 24}" for number in range(EACH)]


def _used(client: Any) -> int:
    return int(client.info("memory")["used_memory"])
