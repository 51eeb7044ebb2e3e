"""A Serve application that answers the engine's calls without a model: what the launcher is tested with."""

from __future__ import annotations

from collections.abc import AsyncIterator

from papa_serving.contracts.items import BackboneInfo
from papa_serving.settings import Settings
from papa_serving.store import open_items
from papa_serving.stubs.engine.v1 import engine_pb2
from ray import serve


@serve.deployment(ray_actor_options={"num_cpus": 0.1})
class PlaceholderEngine:
    """Announces a backbone, so that the gateway takes images, and replies with where its settings say the data lies."""

    async def __init__(self, settings: Settings) -> None:
        self._place = str(settings.data_dir)
        await open_items(settings).publish_backbone(BackboneInfo("2-" + "0" * 64, settings.backbone, (1, 8, 8)))

    async def Run(self, request: engine_pb2.RunRequest) -> AsyncIterator[engine_pb2.RunResponse]:
        yield engine_pb2.RunResponse(done=engine_pb2.RunDone(revision=self._place))


def app(args: dict[str, object]) -> serve.Application:
    return PlaceholderEngine.bind(Settings())


@serve.deployment(ray_actor_options={"num_cpus": 0.1})
class Failing:
    def __init__(self) -> None:
        raise FileNotFoundError("no backbone 'nothing'")


def failing_app(args: dict[str, object]) -> serve.Application:
    return Failing.bind()
