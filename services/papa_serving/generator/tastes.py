"""Answers what is known of a user's taste, for pictures that were not drawn here: the kinds that it consists of, and
how likely the user likes each picture."""

from __future__ import annotations

import asyncio
import logging
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from papa.pixels import to_x0
from papa.pool import Pool, StoredPool
from papa.prototypes import Kinds, Prototypes, backbone_kinds, kinds
from papa.replay import Replay
from papa.revision_files import MANIFEST_FILE, STATE_FILE, AdapterDamagedError, unpack_replay
from papa.selection import teaching_share
from papa_serving.contracts import limits
from papa_serving.contracts.catalogue import Encoder
from papa_serving.contracts.errors import EncoderChanged, InvalidRequest, RevisionNotFound, Violation
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.revisions import RevisionStore
from papa_serving.generator.adapters import Adapters, Resolved
from papa_serving.generator.embedding import Embedder
from papa_serving.generator.job import HostAdapter
from papa_serving.stubs.engine.v1 import engine_pb2

_log = logging.getLogger(__name__)

Kind = engine_pb2.Kind

POOL_AT_ONCE = 64
"""Samples of the pool that wait to be embedded at the same time."""


class Tastes:
    """Answers EngineService.Judge. Belongs to one event loop.

    The kinds of an adapter are remembered as long as it is cached, so that they go with a deleted user's adapters.
    """

    def __init__(
        self,
        adapters: Adapters,
        revisions: RevisionStore,
        samples: StoredPool | None,
        embedder: Embedder,
        encoder: Encoder,
    ) -> None:
        """`samples` are the backbone's pool, of which the engine computes the features when they are first needed;
        `encoder` is what embeds."""
        self._adapters, self._revisions = adapters, revisions
        self._samples, self._embedder = samples, embedder
        self._encoder, self._size = encoder, encoder.size
        self._kinds: WeakKeyDictionary[HostAdapter, Kinds] = WeakKeyDictionary()
        self._embedding: asyncio.Task[Pool | None] | None = None
        self._backbone: Prototypes | None = None
        self.teaching = 0.0
        """The default share of items that may teach, until some labels are known."""

    async def judge(self, request: engine_pb2.JudgeRequest) -> engine_pb2.Judgement:
        """The probabilities of the given embeddings, and the kinds where they are asked for.

        Raises EncoderChanged, InvalidRequest, UserDeleted, StorageUnavailable.
        """
        if request.encoder != self._encoder.name:
            raise EncoderChanged(
                f"the catalogue was embedded by {request.encoder}, and this deployment embeds by "
                f"{self._encoder.name}: import it again"
            )
        features = torch.from_numpy(_embeddings(request, self._size))
        resolved = await self._adapters.resolve(UserKey(request.tenant, request.user), "")
        head = None if resolved is None else resolved.adapter.head
        answer = engine_pb2.Judgement(revision="" if resolved is None else resolved.record.name)
        if head is not None and resolved is not None:
            answer.labels = resolved.labels
            answer.teaching = teaching_share(self.teaching, answer.labels)
            if len(features):
                answer.probabilities.extend((await asyncio.to_thread(head.probability, features)).tolist())
        if request.kinds:
            answer.kinds.extend(await self._all_kinds(resolved))
        return answer

    async def pool(self) -> Pool | None:
        """The backbone's pool with its features. They take the engine some seconds of its time, and are computed once:
        everybody who asks meanwhile waits for the same ones. Raises QueueFull, GeneratorUnavailable."""
        if self._embedding is None or (self._embedding.done() and self._embedding.exception() is not None):
            self._embedding = asyncio.create_task(self._embedded())
        return await asyncio.shield(self._embedding)

    async def _embedded(self) -> Pool | None:
        """Embeds a few samples at a time, so that the queue has room for others."""
        if self._samples is None:
            return None
        found = list[Tensor]()
        for part in self._samples.samples.split(POOL_AT_ONCE):
            found += await asyncio.gather(*map(asyncio.wrap_future, self._embedder.submit("", part)))
        return Pool(to_x0(self._samples.samples), torch.cat(found), self._samples.first_seed)

    async def _all_kinds(self, resolved: Resolved | None) -> list[Kind]:
        """The kinds of the taste, and those of the backbone where the taste is not known well enough to ask of it."""
        named = list[Kind]()
        if resolved is not None:
            own = await self._of(resolved)
            named += _to_wire(Kind.ORIGIN_DRAWN, own.drawn)
            named += _to_wire(Kind.ORIGIN_LIKED, own.liked)
            named += _to_wire(Kind.ORIGIN_QUESTION, own.questions)
        if not any(each.origin == Kind.ORIGIN_QUESTION for each in named):
            if self._backbone is None:
                self._backbone = await asyncio.to_thread(backbone_kinds, await self.pool(), self._size)
            named += _to_wire(Kind.ORIGIN_BACKBONE, self._backbone)
        return named

    async def _of(self, resolved: Resolved) -> Kinds:
        adapter = resolved.adapter
        found = self._kinds.get(adapter)
        if found is None:
            replay, pool = await self._replay(resolved), await self.pool()
            found = await asyncio.to_thread(kinds, adapter.head, replay.features, replay.grades, pool)
            self._kinds[adapter] = found
        return found

    async def _replay(self, resolved: Resolved) -> Replay:
        """The labels of the revision; none where its state is damaged, since its head still judges."""
        key, names = resolved.adapter.key, (MANIFEST_FILE, STATE_FILE)
        try:
            data = await asyncio.gather(*(self._revisions.get(key.user, key.revision, name) for name in names))
            files = dict(zip(names, data, strict=True))
            replay = await asyncio.to_thread(unpack_replay, files, resolved.record.sha256)
        except (AdapterDamagedError, RevisionNotFound) as error:
            _log.warning(
                "the labels of a revision are damaged: recommendations do not know what its user liked",
                extra={"revision": key.revision, "user_digest": key.user.digest, "detail": str(error)},
            )
            return Replay(torch.zeros(0), torch.zeros(0), torch.zeros(0, self._size))
        return replay


def _to_wire(origin: Kind.Origin.ValueType, found: Prototypes) -> list[Kind]:
    directions = found.directions.numpy().astype("<f2")
    return [
        Kind(origin=origin, direction=direction.tobytes(), share=share)
        for direction, share in zip(directions, found.shares.tolist(), strict=True)
    ]


def _embeddings(request: engine_pb2.JudgeRequest, size: int) -> NDArray[np.float32]:
    """The embeddings of a request. Shape: [n, size]; n may be 0. Raises InvalidRequest."""
    findings = {
        "request_id": len(request.request_id) <= limits.MAX_ID,
        "tenant": len(request.tenant) <= limits.MAX_ID,
        "user": 1 <= len(request.user) <= limits.MAX_ID,
        "embeddings": len(request.embeddings) <= limits.MAX_JUDGED
        and all(len(each) == 2 * size for each in request.embeddings),
    }
    bad = [Violation(field, "exceeds what the engine takes") for field, good in findings.items() if not good]
    if bad:
        raise InvalidRequest(bad)
    rows = np.frombuffer(b"".join(request.embeddings), "<f2").astype(np.float32)
    return rows.reshape(len(request.embeddings), size)
