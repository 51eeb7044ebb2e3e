"""Recommends: finds candidates near the kinds of a user's taste, has them judged, and composes a page of them."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import zip_longest

import numpy as np

from papa_serving.catalogue.page import Candidate, Chosen, compose, turns
from papa_serving.contracts.catalogue import CatalogueKey, Catalogues, Filter
from papa_serving.contracts.limits import MAX_JUDGED
from papa_serving.contracts.recommending import (
    REASONS,
    Origin,
    Recommendation,
    Recommended,
    SeenItems,
    Taste,
    TasteJudge,
    Wish,
)

FOUND = 16
"""Items that are looked for near a kind, beside what the page takes of it."""
WIDER = 8
"""How many times as many are looked for, near every kind, where those do not fill the page."""
MOST_FOUND = 1_000
"""Items that one search may find."""


class Recommender:
    """Retrieval, judgement and composition over any catalogues, judge and memory."""

    def __init__(self, catalogues: Catalogues, judge: TasteJudge, seen: SeenItems) -> None:
        self._catalogues, self._judge, self._seen = catalogues, judge, seen

    async def recommend(self, wish: Wish) -> Recommendation:
        """Chooses items and remembers that they were recommended. An item that is deleted meanwhile is left out.

        Raises UserDeleted, StorageUnavailable, CatalogueUnsupported, and what the judge raises.
        """
        taste = await self._judge.taste(wish.user)
        exploration = taste.teaching if wish.exploration is None else wish.exploration
        rng = np.random.default_rng(wish.seed)
        order = turns(taste, wish.count, exploration, rng)
        excluded = await self._seen.of_user(wish.user, wish.catalogue) if wish.exclude_seen else frozenset()
        page = await self._page(wish, taste, order, excluded)
        await self._seen.add(wish.user, wish.catalogue, [each.candidate.item_id for each in page])
        items = [_recommended(taste, each) for each in page]
        return Recommendation(items, taste.revision, taste.personal)

    async def _page(self, wish: Wish, taste: Taste, order: Sequence[int], excluded: Collection[str]) -> list[Chosen]:
        planned = {kind: FOUND + 4 * number for kind, number in Counter(order).items()}
        candidates = await self._judged(wish, taste, planned, excluded)
        page = compose(candidates, taste.kinds, order, wish.count, wish.diversity)
        if len(page) < wish.count:
            wider = min(MOST_FOUND, WIDER * (FOUND + wish.count) + len(excluded))
            everywhere = [kind for kind, each in enumerate(taste.kinds) if each.origin is not Origin.QUESTION]
            candidates = await self._judged(wish, taste, dict.fromkeys([*planned, *everywhere], wider), excluded)
            page = compose(candidates, taste.kinds, order, wish.count, wish.diversity)
        return await self._without_deleted(wish, taste, order, candidates, page)

    async def _without_deleted(
        self, wish: Wish, taste: Taste, order: Sequence[int], candidates: Sequence[Candidate], page: list[Chosen]
    ) -> list[Chosen]:
        """The page without items that were deleted since they were found; others take their places."""
        while page:
            known = await self._catalogues.fingerprints(wish.catalogue, [each.candidate.item_id for each in page])
            gone = {each.candidate.item_id for each, found in zip(page, known, strict=True) if not found}
            if not gone:
                break
            candidates = [each for each in candidates if each.item_id not in gone]
            page = compose(candidates, taste.kinds, order, wish.count, wish.diversity)
        return page

    async def _judged(
        self, wish: Wish, taste: Taste, planned: dict[int, int], excluded: Collection[str]
    ) -> list[Candidate]:
        """The candidates near the kinds that `planned` names, so many of each, with their chances."""
        found = await self._found(wish.catalogue, taste, planned, wish.filters, excluded)
        names = list(found)[:MAX_JUDGED]
        items = await self._catalogues.get(wish.catalogue, names, pictures=False)
        candidates = [
            Candidate(item.item_id, found[item.item_id], item.vector, item.metadata)
            for item in items
            if item is not None
        ]
        if not taste.labels or not candidates:
            return candidates
        embeddings = [item.embedding for item in items if item is not None]
        chances = (await self._judge.probabilities(wish.user, embeddings)).tolist()
        judged = [replace(each, chance=chance) for each, chance in zip(candidates, chances, strict=True)]
        return [each for each in judged if not each.chance < wish.min_like_probability]

    async def _found(
        self,
        catalogue: CatalogueKey,
        taste: Taste,
        planned: dict[int, int],
        filters: Sequence[Filter],
        excluded: Collection[str],
    ) -> dict[str, dict[int, float]]:
        """The kinds near which each item was found, with their similarity; first the nearest item of each kind, then
        the second.

        As many items more are looked for as may have to be left out again, up to twice as many in all: where more of
        them are left out, the wider search finds others.
        """
        numbers = [min(MOST_FOUND, count + min(count, len(excluded))) for count in planned.values()]
        searches = await asyncio.gather(
            *(
                self._catalogues.search(catalogue, taste.kinds[kind].direction, number, filters)
                for kind, number in zip(planned, numbers, strict=True)
            )
        )
        found: dict[str, dict[int, float]] = {}
        for nearest in zip_longest(*searches):
            for kind, each in zip(planned, nearest, strict=True):
                if each is not None and each.item_id not in excluded:
                    found.setdefault(each.item_id, {})[kind] = each.similarity
        return found


def _recommended(taste: Taste, chosen: Chosen) -> Recommended:
    item = chosen.candidate
    chance = None if math.isnan(item.chance) else item.chance
    return Recommended(item.item_id, chance, REASONS[taste.kinds[chosen.kind].origin], item.metadata)
