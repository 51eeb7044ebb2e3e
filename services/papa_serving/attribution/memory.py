"""A memory stub of the log of activity. It passes the same tests as the one on Redis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import astuple

from typing_extensions import override

from papa_serving.contracts.attribution import MEASURES, ActivityLog, ArmSums, Count, Kind, Record
from papa_serving.contracts.errors import UserDeleted
from papa_serving.contracts.identity import UserKey
from papa_serving.store.memory import MemoryState


class MemoryActivityLog(ActivityLog):
    """The activity of the users of a MemoryState."""

    def __init__(self, state: MemoryState) -> None:
        self._state = state

    @override
    async def add(self, user: UserKey, kind: Kind, data: bytes) -> None:
        with suppress(UserDeleted):
            self._state.keep(self._of(user, kind), data, self._most(kind))

    @override
    async def merge(self, user: UserKey, kind: Kind, records: Sequence[Record]) -> None:
        with suppress(UserDeleted):
            known = self._of(user, kind)
            news = [record for record in records if record not in known]
            known[:] = self._state.alive(sorted([*known, *news], key=lambda record: record.at))[-self._most(kind) :]

    @override
    async def kept(self, user: UserKey, kind: Kind) -> Sequence[Record]:
        try:
            return self._state.alive(self._of(user, kind))
        except UserDeleted:
            return []

    @override
    async def count(self, user: UserKey, counts: Mapping[str, Count]) -> None:
        with suppress(UserDeleted):
            known = self._state.user(user).counts
            for arm, new in counts.items():
                before = known.get(arm, (0, 0, 0, 0))
                known[arm] = tuple(map(sum, zip(before, astuple(new), strict=True)))

    @override
    async def sums(self, tenant: str, arms: Sequence[str]) -> Sequence[ArmSums]:
        return [_summed(self._state.counts(tenant, arm)) for arm in arms]

    @override
    async def close(self) -> None:
        pass

    def _most(self, kind: Kind) -> int:
        settings = self._state.settings.attribution
        return settings.impressions if kind == "impression" else settings.events

    def _of(self, user: UserKey, kind: Kind) -> list[Record]:
        known = self._state.user(user)
        return known.impressions if kind == "impression" else known.attributed


def _summed(users: Sequence[tuple[int, ...]]) -> ArmSums:
    """The sums over users, each with the items that were shown and the events of each measure."""
    shown = [counts[0] for counts in users]
    measures = {}
    for at, measure in enumerate(MEASURES, 1):
        hits = [counts[at] for counts in users]
        cross = sum(x * n for x, n in zip(hits, shown, strict=True))
        measures[measure] = (sum(hits), sum(x * x for x in hits), cross)
    return ArmSums(len(users), sum(shown), sum(n * n for n in shown), measures)
