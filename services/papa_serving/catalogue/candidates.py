"""Finds the candidates of one recommendation: near the kinds of the taste, each judged once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from papa_serving.catalogue.page import Candidate
from papa_serving.contracts.catalogue import Catalogues, Near
from papa_serving.contracts.limits import MAX_JUDGED
from papa_serving.contracts.recommending import Origin, Taste, TasteJudge, Wish

FOUND = 16
"""Items that are looked for near a kind, beside what the page takes of it."""
JUDGED = 96
"""Items that are judged at first, beside as many for each place of the page as `FOUND`."""
WIDER = 8
"""How many times as many are looked for, near fewer kinds, where those do not fill the page."""
MOST_FOUND = 1_000
"""Items that one search looks for, beside those that are left out."""
PROBED = 256
"""Items that pass the filters, beside those that are left out, up to which one search finds them all."""
KINDS, WIDER_KINDS = 24, 6
"""Kinds that are searched for at most, at first and wider."""
MOST_JUDGED = 4 * MAX_JUDGED
"""Items of one call."""


class Candidates:
    """The candidates of one call. `more` adds to them; nothing that was judged is lost again."""

    def __init__(
        self,
        catalogues: Catalogues,
        judge: TasteJudge,
        wish: Wish,
        encoder: str,
        taste: Taste,
        order: Sequence[int],
        excluded: Collection[str],
    ) -> None:
        """`order` holds the number of the kind for each place of the page."""
        self._catalogues, self._judge, self._wish, self._encoder = catalogues, judge, wish, encoder
        self._taste, self._turns = taste, Counter(order)
        self._left_out = set(excluded)
        self._near: dict[str, dict[int, float]] = {}
        self._waiting: list[str] = []
        self._asked = 0
        self._judged: dict[str, Candidate] = {}
        self._searches = [self._narrow, self._wide]
        self._complete = False
        """Whether the searches have found all items that pass."""

    @property
    def usable(self) -> list[Candidate]:
        """Those that were judged likely enough, in the order in which they were found."""
        least = self._wish.min_like_probability
        return [each for name, each in self._judged.items() if name not in self._left_out and not each.chance < least]

    def leave_out(self, item_ids: Iterable[str]) -> None:
        """Takes items out, whether they have been found yet or not."""
        self._left_out.update(item_ids)

    async def more(self) -> bool:
        """Judges the next ones, and searches wider where there are none. False where no more are to be had."""
        while not (waiting := [name for name in self._waiting if name not in self._left_out]):
            if self._complete or not self._searches:
                return False
            await self._searches.pop(0)()
        most = MAX_JUDGED if self._asked else min(MAX_JUDGED, JUDGED + FOUND * self._wish.count)
        batch = waiting[: min(most, MOST_JUDGED - self._asked)]
        self._waiting = waiting[len(batch) :]
        self._asked += len(batch)
        await self._judge_all(batch)
        return bool(batch)

    async def _narrow(self) -> None:
        """Near each kind that has a place on the page. As many items more are looked for as may have to be left out
        again, up to twice as many in all: where more of them are left out, the wider search finds others."""
        planned = {kind: FOUND + 4 * turns for kind, turns in self._turns.most_common(KINDS)}
        numbers = {kind: number + min(number, len(self._left_out)) for kind, number in planned.items()}
        found: dict[int, list[Near]] = {}
        if self._wish.filters and numbers:
            # Often few items pass. Then one search finds them all, and costs about as much as for a few of them.
            first = next(iter(numbers))
            found[first] = await self._search(first, max(PROBED + len(self._left_out), numbers[first]))
            if self._complete:
                await self._spread([each.item_id for each in found[first]], planned)
                return
        rest = [kind for kind in numbers if kind not in found]
        found |= zip(rest, await asyncio.gather(*(self._search(kind, numbers[kind]) for kind in rest)), strict=True)
        self._add({kind: found[kind] if self._complete else found[kind][: numbers[kind]] for kind in planned})

    async def _wide(self) -> None:
        """More of the kinds that have most of the page, then of the others but what would teach. What is left out may
        be all that is nearest, so that as many are looked for beside it."""
        wanted = min(MOST_FOUND, WIDER * (FOUND + self._wish.count)) + len(self._left_out)
        kinds = self._taste.kinds
        others = sorted(
            (number for number, kind in enumerate(kinds) if kind.origin is not Origin.QUESTION),
            key=lambda number: -kinds[number].share,
        )
        own = [kind for kind, _ in self._turns.most_common() if kind in others]
        asked = list(dict.fromkeys([*own, *others, *self._turns]))[:WIDER_KINDS]
        found = await asyncio.gather(*(self._search(kind, wanted) for kind in asked))
        self._add(dict(zip(asked, found, strict=True)))

    async def _search(self, kind: int, number: int) -> list[Near]:
        wish, direction = self._wish, self._taste.kinds[kind].direction
        found = await self._catalogues.search(wish.catalogue, direction, number, wish.filters)
        self._complete |= len(found) < number
        return found

    async def _spread(self, item_ids: Sequence[str], planned: Mapping[int, int]) -> None:
        """Adds all items that pass as the searches near each kind would have found them, and what none of those would
        have found near the kind that it is nearest to."""
        names = [name for name in item_ids if name not in self._left_out]
        embeddings = await self._catalogues.embeddings(self._wish.catalogue, names)
        rows = {name: _vector(each) for name, each in zip(names, embeddings, strict=True) if each}
        if not rows:
            return
        names, kinds = list(rows), list(planned)
        directions = np.stack([self._taste.kinds[kind].direction for kind in kinds])
        near = (1 + _unit(directions) @ _unit(np.stack(list(rows.values()))).T) / 2
        found: dict[int, list[Near]] = {}
        for kind, row in zip(kinds, near, strict=True):
            nearest = np.argsort(-row, kind="stable")[: planned[kind]]
            found[kind] = [Near(names[index], float(row[index])) for index in nearest]
        missed = set(names) - {each.item_id for some in found.values() for each in some}
        for index, name in enumerate(names):
            if name in missed:
                best = int(near[:, index].argmax())
                found[kinds[best]].append(Near(name, float(near[best, index])))
        self._add(found)

    def _add(self, found: Mapping[int, Sequence[Near]]) -> None:
        """Notes what was found near each kind. What is not judged yet waits for it in an order that gives each kind its
        share: the nearest of a kind with four turns come four times as quickly as those of a kind with one."""
        places: dict[str, float] = dict.fromkeys(self._waiting, 0.0)
        for kind, nearest in found.items():
            turns = max(0.5, self._turns[kind])
            for rank, each in enumerate(one for one in nearest if one.item_id not in self._left_out):
                self._near.setdefault(each.item_id, {})[kind] = each.similarity
                place = (rank + 0.5) / turns
                places[each.item_id] = min(place, places.get(each.item_id, place))
        self._waiting = sorted((name for name in places if name not in self._judged), key=places.__getitem__)

    async def _judge_all(self, names: Sequence[str]) -> None:
        embeddings = await self._catalogues.embeddings(self._wish.catalogue, names)
        known = {name: each for name, each in zip(names, embeddings, strict=True) if each}
        self._left_out.update(set(names) - set(known))
        # `near` is shared: a later search adds the kinds near which it finds the candidate.
        candidates = [Candidate(name, self._near[name], _vector(each)) for name, each in known.items()]
        if self._taste.labels and candidates:
            chances = await self._judge.probabilities(
                self._wish.user, self._encoder, list(known.values()), self._taste.revision
            )
            candidates = [
                replace(each, chance=chance) for each, chance in zip(candidates, chances.tolist(), strict=True)
            ]
        self._judged |= {each.item_id: each for each in candidates}


def _vector(embedding: bytes) -> NDArray[np.float32]:
    return np.frombuffer(embedding, "<f2").astype(np.float32)


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    scaled: NDArray[np.float32] = rows / (np.linalg.norm(rows, axis=1, keepdims=True) + 1e-12)
    return scaled
