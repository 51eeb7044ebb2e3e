"""Pictures embedded between denoising steps: by the features that heads use, fairly, and bounded."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
import torch
from papa_serving.contracts.catalogue import Encoder
from papa_serving.contracts.errors import GeneratorUnavailable, InvalidRequest, QueueFull
from papa_serving.contracts.limits import MAX_EMBEDDED
from papa_serving.contracts.samples import pack_sample
from papa_serving.generator import wire
from papa_serving.generator.embedding import CHUNK, QUEUED, Embedder, encoder_of
from papa_serving.stubs.engine.v1 import engine_pb2

from papa.pixels import to_x0
from tests.generator.support import SHAPE, GatedDenoiser, Run, running, submit, tiny_denoiser


def pictures(count: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


async def test_pictures_are_embedded_by_the_features_that_a_head_sees() -> None:
    denoiser = tiny_denoiser()
    given, encoder = pictures(CHUNK + 3), encoder_of(denoiser)
    with running(denoiser) as engine:
        request = engine_pb2.EmbedRequest(tenant="shop", samples=[pack_sample(each.numpy()) for each in given])
        answer = await asyncio.wait_for(wire.embed(engine.embedder, encoder, request, SHAPE), 60)
    rows = [np.frombuffer(each, "<f2") for each in answer.embeddings]
    expected = denoiser.features(to_x0(given)).half().numpy()
    np.testing.assert_allclose(np.stack(rows), expected, rtol=1e-2, atol=1e-3)
    assert (answer.encoder, answer.size) == (encoder.name, expected.shape[1])


async def test_without_pictures_only_the_encoder_is_named() -> None:
    embedder = Embedder(tiny_denoiser(), lambda: None)
    answer = await wire.embed(embedder, Encoder("e1", 8), engine_pb2.EmbedRequest(), SHAPE)
    assert (answer.encoder, answer.size, list(answer.embeddings)) == ("e1", 8, [])


async def test_the_engine_refuses_what_no_gateway_sends() -> None:
    embedder = Embedder(tiny_denoiser(), lambda: None)
    good = pack_sample(pictures(1)[0].numpy())
    for request in (
        engine_pb2.EmbedRequest(samples=[good] * (MAX_EMBEDDED + 1)),
        engine_pb2.EmbedRequest(samples=[good[:-1]]),
        engine_pb2.EmbedRequest(samples=[b""]),
        engine_pb2.EmbedRequest(samples=[pack_sample(np.zeros((1, 4, 4), np.uint8))]),
        engine_pb2.EmbedRequest(samples=[pack_sample(np.zeros(SHAPE, np.float16))]),
        engine_pb2.EmbedRequest(tenant="x" * 129),
        engine_pb2.EmbedRequest(request_id="x" * 129),
    ):
        with pytest.raises(InvalidRequest):
            await wire.embed(embedder, Encoder("e1", 8), request, SHAPE)
    assert not embedder


def test_one_tenant_leaves_room_for_another() -> None:
    embedder = Embedder(tiny_denoiser(), lambda: None)
    for _ in range(QUEUED // 2 // MAX_EMBEDDED):
        embedder.submit("shop", pictures(MAX_EMBEDDED))
    with pytest.raises(QueueFull) as refused:
        embedder.submit("shop", pictures(MAX_EMBEDDED))
    assert refused.value.retry_after
    (kept,) = embedder.submit("rival", pictures(CHUNK))
    while embedder:
        embedder.work()
    assert len(kept.result(0)) == CHUNK
    embedder.submit("shop", pictures(MAX_EMBEDDED))


def test_a_failure_is_its_callers_alone() -> None:
    denoiser = GatedDenoiser()
    denoiser.open()
    embedder = Embedder(denoiser, lambda: None)
    (first,) = embedder.submit("shop", pictures(1))
    denoiser.failing = True
    embedder.work()
    with pytest.raises(RuntimeError, match="says the test"):
        first.result(0)
    denoiser.failing = False
    (cancelled,), (second,) = embedder.submit("shop", pictures(1)), embedder.submit("shop", pictures(1))
    assert cancelled.cancel()
    embedder.work()
    embedder.work()
    assert len(second.result(0)) == 1


def test_a_generation_waits_for_one_chunk_between_two_of_its_steps() -> None:
    gate = GatedDenoiser()
    with running(gate) as engine:
        run = submit(engine, Run("ann", 1, 4))
        gate.arrive()
        chunks = engine.embedder.submit("shop", pictures(2 * CHUNK))
        gate.advance(5)
        assert [len(step) for step in gate.steps[:5]] == [1, CHUNK, 1, CHUNK, 1]
        gate.open()
        assert run.wait().error is None
        assert [len(chunk.result(60)) for chunk in chunks] == [CHUNK, CHUNK]


def test_an_engine_that_ends_refuses_what_waits() -> None:
    embedder = Embedder(tiny_denoiser(), lambda: None)
    (waiting,) = embedder.submit("shop", pictures(1))
    embedder.close(GeneratorUnavailable("ended"))
    with pytest.raises(GeneratorUnavailable):
        waiting.result(0)
    with pytest.raises(GeneratorUnavailable):
        embedder.submit("shop", pictures(1))


def test_another_backbone_is_another_encoder() -> None:
    assert encoder_of(tiny_denoiser()).name == encoder_of(tiny_denoiser()).name
    other = tiny_denoiser()
    other.backbone_hash = "another"
    assert encoder_of(other).name != encoder_of(tiny_denoiser()).name
