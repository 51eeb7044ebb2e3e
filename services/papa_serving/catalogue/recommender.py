"""Recommends: finds candidates near the kinds of a user's taste, has them judged, and composes a page of them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

import numpy as np

from papa_serving.catalogue.candidates import Candidates
from papa_serving.catalogue.page import Chosen, compose, turns
from papa_serving.catalogue.passing import passes
from papa_serving.contracts.catalogue import Catalogues, Metadata
from papa_serving.contracts.errors import CatalogueNotFound, GeneratorUnavailable
from papa_serving.contracts.recommending import (
    REASONS,
    Recommendation,
    Recommended,
    SeenItems,
    Taste,
    TasteChanged,
    TasteJudge,
    Wish,
)

ROUNDS = 8
"""How often the places of items that cannot be shown are filled anew."""
RETRY_AFTER = 1.0
"""Seconds."""


class Recommender:
    """Retrieval, judgement and composition over any catalogues, judge and memory."""

    def __init__(self, catalogues: Catalogues, judge: TasteJudge, seen: SeenItems) -> None:
        self._catalogues, self._judge, self._seen = catalogues, judge, seen

    async def recommend(self, wish: Wish) -> Recommendation:
        """Chooses items by one revision of the taste, and remembers that they were recommended. An item that is deleted
        or changed meanwhile is left out.

        Raises CatalogueNotFound, UserDeleted, StorageUnavailable, CatalogueUnsupported, GeneratorUnavailable where the
        taste changes all the time, and what the judge raises.
        """
        call = _Call(self._catalogues, self._judge, self._seen, wish)
        try:
            return await call.answer()
        except TasteChanged:
            pass
        try:
            return await call.answer()
        except TasteChanged as error:
            message = "the user's taste is changing: try again"
            raise GeneratorUnavailable(message, retry_after=RETRY_AFTER) from error


class _Call:
    """One recommendation. What it has noted as recommended stays its own when it starts again."""

    def __init__(self, catalogues: Catalogues, judge: TasteJudge, seen: SeenItems, wish: Wish) -> None:
        self._catalogues, self._judge, self._seen, self._wish = catalogues, judge, seen, wish
        self._noted: set[str] = set()

    async def answer(self) -> Recommendation:
        wish = self._wish
        encoder = await self._catalogues.encoder(wish.catalogue)
        if not encoder:
            raise CatalogueNotFound("the tenant has no catalogue of this name with items in it", field="catalogue")
        taste = await self._judge.taste(wish.user, encoder)
        exploration = taste.teaching if wish.exploration is None else wish.exploration
        order = turns(taste, wish.count, exploration, np.random.default_rng(wish.seed))
        candidates = Candidates(
            self._catalogues, self._judge, wish, encoder, taste, order, await self._seen_elsewhere()
        )
        page, metadata = await self._page(taste, order, candidates)
        items = [_recommended(taste, each, metadata[each.candidate.item_id]) for each in page]
        return Recommendation(items, taste.revision, taste.personal)

    async def _page(
        self, taste: Taste, order: Sequence[int], candidates: Candidates
    ) -> tuple[list[Chosen], dict[str, Metadata]]:
        """The page and the metadata of its items. The places of items that cannot be shown are filled anew."""
        kept, metadata = list[Chosen](), dict[str, Metadata]()
        await candidates.more()
        for _ in range(ROUNDS):
            page = await self._composed(taste, order, candidates, kept)
            fresh = page[len(kept) :]
            metadata |= await self._presentable(fresh)
            noted = await self._note([each.candidate.item_id for each in fresh if each.candidate.item_id in metadata])
            kept += [each for each in fresh if each.candidate.item_id in noted]
            if len(kept) == len(page):
                break
            candidates.leave_out({each.candidate.item_id for each in fresh} - noted)
            candidates.leave_out(await self._seen_elsewhere())
        return kept, metadata

    async def _composed(
        self, taste: Taste, order: Sequence[int], candidates: Candidates, kept: Sequence[Chosen]
    ) -> list[Chosen]:
        """A page that begins with `kept`, with as many candidates as it takes to fill it."""
        wish = self._wish
        while True:
            usable = candidates.usable
            # In a thread, because it takes milliseconds in which no other call would be served.
            page = await asyncio.to_thread(compose, usable, taste.kinds, order, wish.count, wish.diversity, kept)
            if len(page) == wish.count or not await candidates.more():
                return page

    async def _presentable(self, chosen: Sequence[Chosen]) -> dict[str, Metadata]:
        """The metadata of those that are still there, are what was judged, and pass the filters."""
        names = [each.candidate.item_id for each in chosen]
        items = await self._catalogues.get(self._wish.catalogue, names, pictures=False)
        return {
            item.item_id: item.metadata
            for item, each in zip(items, chosen, strict=True)
            if item is not None
            and passes(item.metadata, self._wish.filters)
            and np.array_equal(item.vector, each.candidate.embedding, equal_nan=True)
        }

    async def _seen_elsewhere(self) -> frozenset[str]:
        """What other calls have recommended lately, where that is not to be repeated."""
        if not self._wish.exclude_seen:
            return frozenset()
        return await self._seen.of_user(self._wish.user, self._wish.catalogue) - self._noted

    async def _note(self, item_ids: Sequence[str]) -> frozenset[str]:
        """Notes items as recommended. Returns those that may be: not what another call has noted first."""
        new = await self._seen.add(self._wish.user, self._wish.catalogue, item_ids)
        may = frozenset(item_ids) & (new | self._noted) if self._wish.exclude_seen else frozenset(item_ids)
        self._noted |= may
        return may


def _recommended(taste: Taste, chosen: Chosen, metadata: Metadata) -> Recommended:
    item = chosen.candidate
    chance = None if math.isnan(item.chance) else item.chance
    return Recommended(item.item_id, chance, REASONS[taste.kinds[chosen.kind].origin], metadata)
