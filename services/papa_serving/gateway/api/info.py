"""InfoService: the limits of this deployment, so that a caller need not meet them to learn of them."""

# ruff: noqa: N802, D102 - the protos name the methods and say what they do

from __future__ import annotations

import importlib.metadata

from papa_serving.contracts.items import ItemStore
from papa_serving.contracts.limits import MAX_ID, MAX_PROMPT
from papa_serving.gateway.rpc.edge import Context
from papa_serving.settings import GatewaySettings
from papa_serving.stubs.serving.v1 import info_pb2, info_pb2_grpc


class InfoService(info_pb2_grpc.InfoServiceServicer):
    """Reads the settings, and the backbone that a generator has announced."""

    def __init__(self, limits: GatewaySettings, items: ItemStore, overdraw: float) -> None:
        self._items = items
        self._defaults = info_pb2.Defaults(overdraw=overdraw)
        self._version = importlib.metadata.version("papa-serving")
        self._limits = info_pb2.Limits(
            max_message_bytes=limits.max_message_bytes,
            max_events=limits.max_events,
            max_image_bytes=limits.max_image_bytes,
            max_image_pixels=limits.max_image_pixels,
            max_count=limits.max_count,
            max_steps=limits.max_steps,
            max_prompt_characters=MAX_PROMPT,
            max_id_characters=MAX_ID,
        )

    async def GetServerInfo(
        self, request: info_pb2.GetServerInfoRequest, context: Context
    ) -> info_pb2.GetServerInfoResponse:
        answer = info_pb2.GetServerInfoResponse(version=self._version, limits=self._limits, defaults=self._defaults)
        if (known := await self._items.backbone_info()) is not None:
            channels, height, width = known.image_shape
            answer.backbone.CopyFrom(
                info_pb2.Backbone(
                    name=known.name,
                    backbone_hash=known.backbone_hash,
                    channels=channels,
                    height=height,
                    width=width,
                    takes_prompt=known.takes_prompt,
                    vocabulary=known.vocabulary.words,
                )
            )
        return answer
