"""Which items a call finds, over a catalogue in memory and tastes of the test's own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from papa_serving.catalogue.memory import MemoryCatalogues
from papa_serving.catalogue.recommender import Recommender
from papa_serving.contracts.catalogue import CatalogueItem, CatalogueKey, Comparison, Filter, Metadata, Near
from papa_serving.contracts.errors import CatalogueNotFound, GeneratorUnavailable
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.recommending import Kind, Origin, Recommendation, Taste, TasteChanged, TasteJudge, Wish
from papa_serving.settings import CatalogueSettings, Settings, StoreSettings
from papa_serving.store.memory import MemorySeenItems, MemoryState
from typing_extensions import override

USER, STOCK = UserKey("shop", "alice"), CatalogueKey("shop", "stock")
Chances = Callable[[np.ndarray], np.ndarray]


class Judge(TasteJudge):
    """Likes as it is told, and calls `meanwhile`. Another revision judges so many times as `changes` says."""

    def __init__(self, taste: Taste, chances: Chances) -> None:
        self._taste, self._chances = taste, chances
        self.judged: list[int] = []
        self.changes = 0
        self.meanwhile: Callable[[], object] = lambda: None

    @override
    async def taste(self, user: UserKey, encoder: str) -> Taste:
        return self._taste

    @override
    async def probabilities(
        self, user: UserKey, encoder: str, embeddings: Sequence[bytes], revision: str
    ) -> np.ndarray:
        await asyncio.sleep(0)
        self.meanwhile()
        self.judged.append(len(embeddings))
        if self.changes:
            self.changes -= 1
            raise TasteChanged("another")
        return self._chances(np.frombuffer(b"".join(embeddings), "<f2").reshape(len(embeddings), -1).astype(np.float32))


class Searched(MemoryCatalogues):
    """Notes what is searched for."""

    def __init__(self) -> None:
        super().__init__(CatalogueSettings(max_items=10_000))
        self.searches: list[int] = []

    @override
    async def search(
        self, catalogue: CatalogueKey, vector: np.ndarray, count: int, filters: Sequence[Filter] = ()
    ) -> list[Near]:
        self.searches.append(count)
        return await super().search(catalogue, vector, count, filters)


class Shop:
    """A catalogue, and what `recommend` needs of a user."""

    def __init__(self, taste: Taste, chances: Chances, user_seen: int = 500) -> None:
        self.catalogues, self.judge = Searched(), Judge(taste, chances)
        self.seen = MemorySeenItems(MemoryState(Settings(store=StoreSettings(user_seen=user_seen))))
        self.recommender = Recommender(self.catalogues, self.judge, self.seen)

    async def put(self, rows: np.ndarray, metadata: Callable[[int], Metadata] = lambda _: {}) -> None:
        for number, row in enumerate(rows.astype("<f2")):
            await self.catalogues.put(STOCK, CatalogueItem(str(number), row.tobytes(), "e", metadata(number)))

    async def recommend(self, count: int, **fields: object) -> Recommendation:
        given = {"exploration": 0.0, "exclude_seen": False, **fields}
        return await self.recommender.recommend(Wish(USER, STOCK, count, **given))  # type: ignore[arg-type]


def kind(origin: Origin, direction: np.ndarray, share: float = 1.0) -> Kind:
    return Kind(origin, direction.astype(np.float32), share)


def surely(rows: np.ndarray) -> np.ndarray:
    return np.full(len(rows), 0.9, np.float32)


def names(made: Recommendation) -> set[str]:
    return {each.item_id for each in made.items}


async def test_a_wider_search_loses_nothing_that_was_found() -> None:
    """One kind has all that passes, and sixteen others fill the wider search with what does not."""
    rng = np.random.default_rng(0)
    directions = np.linalg.qr(rng.normal(size=(32, 32)))[0][:17]
    sizes = [60, *[100] * 16]
    rows = [row * 5 + rng.normal(size=(n, 32)) * 0.3 for row, n in zip(directions, sizes, strict=True)]
    others = [kind(Origin.BACKBONE, row, 1 / 16) for row in directions[1:]]
    taste = Taste("r", 50, [kind(Origin.DRAWN, directions[0]), *others])
    shop = Shop(taste, lambda rows: np.where(rows @ directions[0] > 3, 0.9, 0.05).astype(np.float32))
    await shop.put(np.concatenate(rows))
    for count in (55, 60, 61, 64):
        made = await shop.recommend(count, min_like_probability=0.5)
        assert len(made.items) == min(count, 60), count
        assert names(made) <= {str(number) for number in range(60)}
    assert max(shop.judge.judged) <= 512


async def test_more_is_found_beyond_all_that_may_be_remembered() -> None:
    most = StoreSettings.model_fields["user_seen"].metadata[1].le
    shop = Shop(Taste("r", 50, [kind(Origin.DRAWN, np.eye(2)[0])]), surely, user_seen=most)
    angles = np.linspace(0, 1, most + 80)
    await shop.put(np.stack([np.cos(angles), np.sin(angles)], 1) * 10)
    await shop.seen.add(USER, STOCK, [str(number) for number in range(most)])
    made = await shop.recommend(64, exclude_seen=True)
    assert len(made.items) == 64
    assert min(map(int, names(made))) >= most


async def test_one_search_that_finds_all_that_passes_is_enough() -> None:
    rng = np.random.default_rng(1)
    origins = [Origin.DRAWN] * 8 + [Origin.LIKED] * 8
    taste = Taste("r", 50, [kind(origin, rng.normal(size=8), 1 / 8) for origin in origins])
    shop = Shop(taste, surely)
    await shop.put(rng.normal(size=(400, 8)), lambda number: {"rare": number < 30, "hat": False})
    none = await shop.recommend(64, filters=[Filter("hat", Comparison.IS, (True,))])
    assert (len(none.items), len(shop.catalogues.searches)) == (0, 1)
    few = await shop.recommend(64, filters=[Filter("rare", Comparison.IS, (True,))])
    assert names(few) == {str(number) for number in range(30)}
    assert len(shop.catalogues.searches) == 2
    assert {each.reason.value for each in few.items} == {"near what your model draws", "near what you liked"}


async def test_the_searches_of_a_call_are_bounded() -> None:
    rng = np.random.default_rng(2)
    origins = [*[Origin.DRAWN] * 30, *[Origin.LIKED] * 30]
    taste = Taste("r", 50, [kind(origin, rng.normal(size=4), 1 / 30) for origin in origins])
    shop = Shop(taste, lambda rows: np.zeros(len(rows), np.float32))
    await shop.put(rng.normal(size=(5_000, 4)))
    made = await shop.recommend(64, min_like_probability=0.5)
    assert not made.items
    assert len(shop.catalogues.searches) <= 30
    assert sum(shop.judge.judged) <= 2_048


async def test_calls_at_once_repeat_nothing_of_each_other() -> None:
    rng = np.random.default_rng(3)
    shop = Shop(Taste("r", 50, [kind(Origin.DRAWN, np.ones(8))]), lambda rows: 1 / (1 + np.exp(-rows.sum(1))))
    await shop.put(rng.normal(size=(500, 8)))
    pages = await asyncio.gather(*(shop.recommend(10, exclude_seen=True, seed=seed) for seed in range(4)))
    assert [len(page.items) for page in pages] == [10] * 4
    assert len(set.union(*map(names, pages))) == 40


async def test_an_item_that_changes_meanwhile_is_not_shown_for_what_it_was() -> None:
    shop = Shop(Taste("r", 50, [kind(Origin.DRAWN, np.ones(2))]), surely)
    await shop.put(np.ones((40, 2)), lambda _: {"price": 5.0})
    changed = {"0": {"price": 500.0}, "1": {"price": "5"}, "2": {}}

    def change() -> None:
        for name, metadata in changed.items():
            item = shop.catalogues._catalogues[STOCK][name]
            shop.catalogues._catalogues[STOCK][name] = CatalogueItem(name, item.embedding, "e", metadata)  # type: ignore[arg-type]
        del shop.catalogues._catalogues[STOCK]["3"]
        shop.catalogues._catalogues[STOCK]["4"] = CatalogueItem(
            "4", np.array([9, 0], "<f2").tobytes(), "e", {"price": 5.0}
        )

    shop.judge.meanwhile = change
    made = await shop.recommend(40, filters=[Filter("price", Comparison.AT_MOST, (50.0,))])
    assert names(made) == {str(number) for number in range(5, 40)}


async def test_an_answer_is_of_one_revision() -> None:
    shop = Shop(Taste("r", 50, [kind(Origin.DRAWN, np.ones(2))]), surely)
    await shop.put(np.ones((20, 2)))
    shop.judge.changes = 1
    assert len((await shop.recommend(5, exclude_seen=True)).items) == 5
    assert len(shop.judge.judged) == 2
    shop.judge.changes = 2
    with pytest.raises(GeneratorUnavailable, match="changing"):
        await shop.recommend(5)


async def test_a_catalogue_without_items_is_told() -> None:
    shop = Shop(Taste("r", 50, [kind(Origin.DRAWN, np.ones(2))]), surely)
    with pytest.raises(CatalogueNotFound):
        await shop.recommend(5)
