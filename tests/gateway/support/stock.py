"""Items of a catalogue, and users of the fake engine who like some of them."""

from __future__ import annotations

import io

import numpy as np
from papa_serving.stubs.engine.v1 import engine_pb2
from papa_serving.stubs.serving.v1 import catalogue_pb2
from PIL import Image

from tests.gateway.support.service import Service

Kind = engine_pb2.Kind
Put, New, Value, Catalogue = (
    catalogue_pb2.PutItemsRequest,
    catalogue_pb2.NewItem,
    catalogue_pb2.MetadataValue,
    catalogue_pb2.Catalogue,
)


def png(shade: int = 200) -> bytes:
    data = io.BytesIO()
    Image.new("L", (28, 28), shade).save(data, "PNG")
    return data.getvalue()


def item(item_id: str, shade: int = 200, **metadata: Value) -> New:
    """An item by its embedding: quicker to take than a picture."""
    embedding = catalogue_pb2.Embedding(values=[shade, 1.0, 1.0, 1.0], encoder="the-encoder")
    return New(item_id=item_id, embedding=embedding, metadata=metadata)


def pictured(item_id: str, shade: int = 200, **metadata: Value) -> New:
    return New(item_id=item_id, image=png(shade), metadata=metadata)


async def put(service: Service, *items: New, tenant: str = "", name: str = "") -> list[catalogue_pb2.PutItemsResponse]:
    catalogue = Catalogue(tenant=tenant, name=name)
    requests = [Put(catalogue=catalogue, item=each) for each in items]
    return [response async for response in service.catalogue.PutItems(iter(requests))]


def kind(origin: Kind.Origin.ValueType, *direction: float, share: float = 1.0) -> Kind:
    return Kind(origin=origin, direction=np.array(direction, "<f2").tobytes(), share=share)


LIKES_LARGE = engine_pb2.Judgement(
    revision="000002-aa",
    labels=40,
    kinds=[
        kind(Kind.ORIGIN_DRAWN, 1, 0, 0, 0),
        kind(Kind.ORIGIN_LIKED, 1, 0.1, 0, 0),
        kind(Kind.ORIGIN_QUESTION, 0, 1, 1, 1),
    ],
)
"""The fake engine's user: the larger the first number of an embedding, the likelier."""
SPREAD = [kind(Kind.ORIGIN_BACKBONE, 1, 0, 0, 0, share=0.5), kind(Kind.ORIGIN_BACKBONE, 0, 1, 1, 1, share=0.5)]
