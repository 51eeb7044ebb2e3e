"""From the client to Redis and back: real sockets, a real engine, a real Redis."""

from __future__ import annotations

import io
import secrets

import grpc
import numpy as np
import torch
from papa_serving.catalogue import open_catalogues
from papa_serving.client import AsyncClient, FeedbackEvent, NewItem, Put
from papa_serving.contracts.catalogue import CatalogueKey, Encoder
from papa_serving.contracts.errors import PapaError
from papa_serving.contracts.items import BackboneInfo
from papa_serving.contracts.samples import unpack_sample
from papa_serving.generator import wire
from papa_serving.generator.embedding import Embedder, encoder_of
from papa_serving.local.redis_process import RedisProcess
from papa_serving.settings import RedisSettings, Settings
from papa_serving.stubs.engine.v1 import engine_pb2, engine_pb2_grpc
from PIL import Image

from papa.pixels import to_x0
from tests.gateway.support.fixtures import unstarted
from tests.gateway.support.service import Service
from tests.generator.support import SHAPE, running, tiny_denoiser
from tests.store.support import redis_server

__all__ = ["redis_server", "unstarted"]


class Replica(engine_pb2_grpc.EngineServiceServicer):
    """What a replica answers to Embed, without Ray."""

    def __init__(self, embedder: Embedder, encoder: Encoder) -> None:
        self._embedder, self._encoder = embedder, encoder

    async def Embed(
        self, request: engine_pb2.EmbedRequest, context: grpc.aio.ServicerContext
    ) -> engine_pb2.EmbedResponse:
        try:
            return engine_pb2.EmbedResponse(embedded=await wire.embed(self._embedder, self._encoder, request, SHAPE))
        except PapaError as error:
            return engine_pb2.EmbedResponse(error=wire.run_error(error))


def png(pixels: np.ndarray) -> bytes:
    data = io.BytesIO()
    Image.fromarray(pixels[0]).save(data, "PNG")
    return data.getvalue()


async def test_pictures_are_embedded_stored_found_named_and_deleted(
    unstarted: Service,
    redis_server: RedisProcess,
) -> None:
    """The embeddings are the features that the taste heads of this backbone see."""
    denoiser = tiny_denoiser()
    encoder = encoder_of(denoiser)
    pictures = np.random.default_rng(3).integers(0, 256, (5, *SHAPE), np.uint8)
    expected = denoiser.features(to_x0(torch.from_numpy(pictures))).half().float().numpy()
    redis = RedisSettings(url=redis_server.url, prefix=f"t{secrets.token_hex(4)}")
    unstarted.catalogues = open_catalogues(Settings(redis=redis))
    unstarted.items.info = BackboneInfo("b" * 64, "tiny", SHAPE)
    server, summer = grpc.aio.server(), CatalogueKey("shop", "summer")
    port = server.add_insecure_port("127.0.0.1:0")
    with running(denoiser) as engine:
        engine_pb2_grpc.add_EngineServiceServicer_to_server(Replica(engine.embedder, encoder), server)
        await server.start()
        await unstarted.start(generator=f"127.0.0.1:{port}")
        items = [NewItem(f"i{number}", png(each), {"even": number % 2 == 0}) for number, each in enumerate(pictures)]
        async with AsyncClient(unstarted.gateway.address, tenant="shop") as client:
            for result in (Put.ADDED, Put.UNCHANGED):
                outcomes = await client.put_catalogue_items(items, catalogue="summer")
                assert [(each.item_id, each.result) for each in outcomes] == [(f"i{n}", result) for n in range(5)]
            found = await client.catalogues()
            assert (found.catalogues[0].items, found.encoder, found.embedding_size) == (5, encoder.name, encoder.size)
            stored = await unstarted.catalogues.get(summer, [item.item_id for item in items])
            vectors = np.stack([each.vector for each in stored if each is not None])
            np.testing.assert_allclose(vectors, expected, rtol=0.02, atol=0.01)
            for number, vector in enumerate(expected):
                assert (await unstarted.catalogues.search(summer, vector, 1))[0].item_id == f"i{number}"
            like = FeedbackEvent("alice", 1.0, catalogue_item="i2", catalogue="summer")
            (outcome,) = await client.submit_feedback([like])
            assert outcome.accepted
            assert np.array_equal(unpack_sample(unstarted.log.accepted[0].image), pictures[2])
            assert [each.item_id async for each in client.list_catalogue_items(catalogue="summer", page_size=2)] == [
                item.item_id for item in items
            ]
            assert (await client.get_catalogue_item("i1", catalogue="summer")).metadata == {"even": False}
            assert await client.delete_catalogue_items(["i2"], catalogue="summer") == 1
            assert "i2" not in {each.item_id for each in await unstarted.catalogues.search(summer, expected[2], 5)}
    await server.stop(None)
