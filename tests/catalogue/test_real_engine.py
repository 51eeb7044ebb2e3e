"""From the client to Redis and back: real sockets, a real engine, a real Redis."""

from __future__ import annotations

import io
import secrets
from pathlib import Path

import grpc
import numpy as np
import torch
from papa_serving.catalogue import open_catalogues
from papa_serving.client import AsyncClient, Between, FeedbackEvent, NewItem, Put
from papa_serving.contracts.catalogue import CatalogueKey, Encoder
from papa_serving.contracts.errors import PapaError
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.items import BackboneInfo
from papa_serving.contracts.samples import unpack_sample
from papa_serving.generator import wire
from papa_serving.generator.embedding import Embedder, encoder_of
from papa_serving.generator.tastes import Tastes
from papa_serving.local.redis_process import RedisProcess
from papa_serving.settings import RedisSettings, Settings
from papa_serving.store import open_seen
from papa_serving.stubs.engine.v1 import engine_pb2, engine_pb2_grpc
from PIL import Image

from papa.adapter import new_adapter
from papa.config import UpdateConfig
from papa.pixels import to_x0
from papa.updating import update
from tests.gateway.support.fixtures import unstarted
from tests.gateway.support.service import Service
from tests.generator.support import SHAPE, World, running, tiny_denoiser
from tests.papa.support import likes_bright, shades, with_pool
from tests.store.support import redis_server, redis_settings

__all__ = ["redis_server", "unstarted"]


class Replica(engine_pb2_grpc.EngineServiceServicer):
    """What a replica answers to Embed and Judge, without Ray."""

    def __init__(self, embedder: Embedder, encoder: Encoder, tastes: Tastes | None = None) -> None:
        self._embedder, self._encoder, self._tastes = embedder, encoder, tastes

    async def Judge(
        self, request: engine_pb2.JudgeRequest, context: grpc.aio.ServicerContext
    ) -> engine_pb2.JudgeResponse:
        assert self._tastes is not None
        return engine_pb2.JudgeResponse(judgement=await self._tastes.judge(request))

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


async def test_who_likes_bright_pictures_is_recommended_bright_ones(
    unstarted: Service,
    redis_server: RedisProcess,
    tmp_path: Path,
) -> None:
    """Labels, a head, its kinds, a search in Redis, its judgement, a page: and what is deleted or seen is not there."""
    denoiser = with_pool(shades(*range(0, 256, 8)))
    learnt = update(denoiser, new_adapter(denoiser), likes_bright(), UpdateConfig(steps=1), 3)[0]
    settings = redis_settings(redis_server.url, tmp_path)
    unstarted.catalogues, unstarted.seen = open_catalogues(settings), open_seen(settings)
    unstarted.items.info = BackboneInfo("b" * 64, "tiny", SHAPE)
    world, server = World(denoiser), grpc.aio.server()
    await world.commit(UserKey("shop", "alice"), "000001-aa", learnt.weights, head=learnt.head, replay=learnt.replay)
    port, encoder = server.add_insecure_port("127.0.0.1:0"), encoder_of(denoiser)
    with running(denoiser) as engine:
        tastes = Tastes(world.adapters, world.revisions, denoiser.unrated, engine.embedder, encoder)
        replica = Replica(engine.embedder, encoder, tastes)
        engine_pb2_grpc.add_EngineServiceServicer_to_server(replica, server)
        await server.start()
        await unstarted.start(generator=f"127.0.0.1:{port}")
        stock = shades(*[235] * 12, *[20] * 20).numpy()
        items = [NewItem(f"{'bright' if n < 12 else 'dark'}{n}", png(each), {"n": n}) for n, each in enumerate(stock)]
        async with AsyncClient(unstarted.gateway.address, tenant="shop") as client:
            assert all(each.error is None for each in await client.put_catalogue_items(items))
            page = await client.recommend("alice", 5)
            assert page.personal and page.revision == "000001-aa"
            assert {each.item_id.strip("0123456789") for each in page.items} == {"bright"}
            assert all(each.like_probability > 0.5 for each in page.items if each.like_probability is not None)
            gone = page.items[0].item_id
            await client.delete_catalogue_items([gone])
            second = await client.recommend("alice", 5)
            assert len({each.item_id for each in (*page.items, *second.items)}) == 10
            few = await client.recommend("alice", 20, exclude_seen=False, min_like_probability=0.5)
            assert gone not in {each.item_id for each in few.items}
            assert {each.item_id.strip("0123456789") for each in few.items} == {"bright"}
            ranked = await client.rank("alice", ["dark20", "bright7", "none"])
            assert [each.item_id for each in ranked.items] == ["bright7", "dark20"]
            assert ranked.missing == ("none",)
            drawn = await client.rank("alice", images=[png(stock[20]), png(stock[7])])
            assert [each.index for each in drawn.items] == [1, 0]
            nobody = await client.recommend("new", 10, filters={"n": Between(low=4, high=13)})
            assert not nobody.personal and 0 < len(nobody.items) <= 10
            assert all(4 <= each.metadata["n"] <= 13 for each in nobody.items)
    await server.stop(None)
