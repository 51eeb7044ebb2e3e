"""A service that learns, without a model: an engine whose items get brighter with each revision, and a trainer."""

from __future__ import annotations

import asyncio
import io

import grpc
import torch
from papa_serving.contracts.feedback import UserBatch
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.revisions import Revision
from papa_serving.stubs.engine.v1 import engine_pb2
from PIL import Image

from tests.gateway.support.fake_engine import Step, done
from tests.gateway.support.service import Service

PARTITIONS = 4


class BrightnessOracle:
    """Class 5 is bright, class 0 is dark."""

    def classify(self, x: torch.Tensor) -> torch.Tensor:
        return torch.where(x.flatten(1).mean(dim=1) > 0, 5, 0)


def picture(bright: bool) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (28, 28), 255 if bright else 0).save(buffer, "PNG")
    return buffer.getvalue()


class Learner:
    """Each committed revision makes one more of four items bright, unless `learns` is False."""

    def __init__(self, service: Service, learns: bool = True) -> None:
        self._service, self._learns = service, learns
        self.revisions: dict[UserKey, int] = {}
        service.engine.scripts = [[self._items(), self._end()]]

    def _items(self) -> Step:
        async def step(request: engine_pb2.RunRequest, context: grpc.aio.ServicerContext) -> engine_pb2.RunResponse:
            user = UserKey(request.tenant, request.user)
            bright = 1 + (self.revisions.get(user, 0) if self._learns else 0)
            message = engine_pb2.ItemsDone(revision=self._name(user) if user in self.revisions else "")
            for index in range(request.count):
                message.items.add(
                    item_id=f"{request.generation_id}-{index}",
                    image=picture((request.seed + index) % 4 < bright),
                    content_type="image/png",
                    seed=request.seed + index,
                    index=index,
                    adapter=user in self.revisions,
                )
            return engine_pb2.RunResponse(items=message)

        return step

    def _end(self) -> Step:
        async def step(request: engine_pb2.RunRequest, context: grpc.aio.ServicerContext) -> engine_pb2.RunResponse:
            user = UserKey(request.tenant, request.user)
            response = await done(self._name(user) if user in self.revisions else "")(request, context)
            assert response is not None
            return response

        return step

    def _name(self, user: UserKey) -> str:
        return f"{self.revisions[user]:06}-aa"

    async def train(self) -> None:
        """Commits whatever is pending, until cancelled."""
        log = self._service.log
        leases = [await log.acquire(partition, "learner", 600) for partition in range(PARTITIONS)]
        while True:
            for lease in leases:
                assert lease is not None
                events = await log.read(lease, "", 100)
                if events:
                    user = events[0].user
                    events = [each for each in events if each.user == user]
                    parent = self._name(user) if user in self.revisions else ""
                    number = self.revisions.get(user, 0) + 1
                    name, first, last = f"{number:06}-aa", events[0].sequence, events[-1].sequence
                    revision = Revision(name, parent, float(number), "0" * 64, len(events), last, first, last)
                    assert await log.commit(lease, UserBatch(user, tuple(events)), revision)
                    self.revisions[user] = number
            await asyncio.sleep(0.01)
