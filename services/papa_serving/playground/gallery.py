"""Remembers the last shown pictures for the simulated shopper."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

from papa_serving.client import Item


class Gallery:
    """A bounded store of pictures; the oldest are removed first."""

    def __init__(self, limit: int = 2_000) -> None:
        self._limit = limit
        self._items: OrderedDict[str, Item] = OrderedDict()

    def add(self, items: Iterable[Item]) -> None:
        """Adds the items of a page."""
        for item in items:
            self._items[item.item_id] = item
        while len(self._items) > self._limit:
            self._items.popitem(last=False)

    def find(self, item_ids: Sequence[str]) -> list[Item]:
        """The items in the order asked for. Raises KeyError for one that is not remembered."""
        return [self._items[item_id] for item_id in item_ids]
