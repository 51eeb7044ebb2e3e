"""What the gateway knows of the deployed backbone: asked once, then remembered, since a deployment never changes it."""

from __future__ import annotations

from papa_serving.contracts.errors import GeneratorUnavailable
from papa_serving.contracts.items import BackboneInfo, ItemStore


class KnownBackbone:
    """The backbone that a generator has announced."""

    def __init__(self, items: ItemStore) -> None:
        self._items = items
        self._info: BackboneInfo | None = None

    async def info(self) -> BackboneInfo:
        """Raises GeneratorUnavailable before a generator has ever started, StorageUnavailable."""
        if self._info is None:
            self._info = await self._items.backbone()
        if self._info is None:
            raise GeneratorUnavailable("no generator has announced a backbone yet")
        return self._info
