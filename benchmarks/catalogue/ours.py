"""The service's recommendations, in process: its recommender over a catalogue in memory, and the taste head of papa."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from papa_serving.catalogue.memory import MemoryCatalogues
from papa_serving.catalogue.recommender import Recommender
from papa_serving.contracts.catalogue import CatalogueItem, CatalogueKey
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.recommending import Kind, Origin, SeenItems, Taste, TasteJudge, Wish
from papa_serving.settings import CatalogueSettings
from typing_extensions import override

from benchmarks.alignment.served import TEACHING
from benchmarks.catalogue.rivals import Floats, Recommending
from benchmarks.catalogue.stock import Stock
from papa.config import UpdateConfig
from papa.prototypes import Prototypes, backbone_kinds, kinds
from papa.selection import teaching_share
from papa.taste import Head
from papa.taste import Taste as Regression
from papa.updating import informed

CATALOGUE, USER = CatalogueKey("shop", "stock"), UserKey("shop", "shopper")


class Ours(Recommending):
    """Learns what an update would learn of the labels for its head; the adapter itself is not needed to recommend.

    `diversity` is that of the requests; the service's default when absent.
    """

    def __init__(self, stock: Stock, catalogues: MemoryCatalogues, diversity: float = Wish.diversity) -> None:
        self._stock, self._diversity = stock, diversity
        self._judge, self._shown = _Judge(stock), _Shown()
        self._recommender = Recommender(catalogues, self._judge, self._shown)

    @override
    def page(self, count: int, seed: int, exploring: bool, beside: Collection[int] = ()) -> list[int]:
        self._shown.beside = frozenset(map(str, beside))
        exploration = None if exploring else 0.0
        wish = Wish(USER, CATALOGUE, count, seed, diversity=self._diversity, exploration=exploration)
        made = asyncio.run(self._recommender.recommend(wish))
        return [int(each.item_id) for each in made.items]

    @override
    def learn(self, items: Sequence[int], grades: Sequence[float]) -> None:
        self._shown.items |= {str(item) for item in items}
        self._judge.learn(items, grades)

    @override
    def chances(self, items: Sequence[int]) -> Floats | None:
        if self._judge.head is None:
            return None
        features = self._stock.features[list(items)].float()
        return np.concatenate([self._judge.head.probability(part).double().numpy() for part in features.split(500)])


def catalogue_of(stock: Stock) -> MemoryCatalogues:
    """The pictures as a catalogue in memory, which searches exactly."""
    catalogues = MemoryCatalogues(CatalogueSettings())

    async def fill() -> None:
        for number, row in enumerate(stock.features.numpy().astype("<f2")):
            await catalogues.put(
                CATALOGUE, CatalogueItem(str(number), row.tobytes(), "backbone", fingerprint=str(number))
            )

    asyncio.run(fill())
    return catalogues


class _Judge(TasteJudge):
    def __init__(self, stock: Stock) -> None:
        self._stock, self._pool = stock, stock.pool
        self._items: list[int] = []
        self._grades: list[float] = []
        self.head: Head | None = None
        self._taste: Taste | None = None
        self._backbone = backbone_kinds(self._pool, stock.features.shape[1])

    def learn(self, items: Sequence[int], grades: Sequence[float]) -> None:
        self._items += items
        self._grades += grades
        self._taste = None
        config, pool = UpdateConfig(), self._pool
        unrated = None if pool is None else pool.unrated
        features, known = self._stock.features[self._items], torch.tensor(self._grades)
        regression = Regression(features, known, unrated, config.trust_ridge, config.neighbours)
        self.head = regression.head()
        if self.head is not None and pool is not None:
            self.head = informed(self.head, regression, pool)

    @override
    async def taste(self, user: UserKey, encoder: str) -> Taste:
        self._taste = self._taste or self._of_labels()
        return self._taste

    def _of_labels(self) -> Taste:
        features, grades = self._stock.features[self._items], torch.tensor(self._grades)
        found = kinds(self.head, features, grades, self._pool)
        named = _named(Origin.DRAWN, found.drawn) + _named(Origin.LIKED, found.liked)
        named += _named(Origin.QUESTION, found.questions)
        if not len(found.questions.shares):
            named += _named(Origin.BACKBONE, self._backbone)
        labels = 0 if self.head is None else self.head.labels
        return Taste("revision" if self._items else "", labels, named, teaching_share(TEACHING, labels))

    @override
    async def probabilities(
        self, user: UserKey, encoder: str, embeddings: Sequence[bytes], revision: str
    ) -> NDArray[np.float32]:
        assert self.head is not None
        rows = np.frombuffer(b"".join(embeddings), "<f2").reshape(len(embeddings), -1).astype(np.float32)
        return self.head.probability(torch.from_numpy(rows)).numpy()


class _Shown(SeenItems):
    """What has its label, and what else the next page leaves out. A page that is only measured is not remembered."""

    def __init__(self) -> None:
        self.items: set[str] = set()
        self.beside: frozenset[str] = frozenset()

    @override
    async def of_user(self, user: UserKey, catalogue: CatalogueKey) -> frozenset[str]:
        return self.beside | self.items

    @override
    async def add(self, user: UserKey, catalogue: CatalogueKey, item_ids: Sequence[str]) -> frozenset[str]:
        """`Ours.learn` remembers what was shown."""
        return frozenset(item_ids)

    @override
    async def close(self) -> None:
        """Nothing is open."""


def _named(origin: Origin, found: Prototypes) -> list[Kind]:
    rows = found.directions.half().float().numpy()
    return [Kind(origin, row, share) for row, share in zip(rows, found.shares.tolist(), strict=True)]
