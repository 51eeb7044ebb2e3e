"""Who makes room: running rows that are parked so that a few waiting ones do not wait for another's many or long ones.

A parked row loses nothing but time: it waits with its state and goes on where it stopped.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TypeVar

from papa_serving.contracts.identity import UserKey
from papa_serving.generator.job import AdapterKey, Job, Row

QUANTUM = 32
"""Steps that a row may run at a stretch while somebody has nothing running at all."""

P = TypeVar("P", bound=Hashable)
"""A party that shares places: users, or the generations of one."""

Waiting = Mapping[UserKey, Mapping[Job, Sequence[Row]]]


def beyond(running: Sequence[Row], limits: Mapping[UserKey, int]) -> list[Row]:
    """The rows beyond their user's limit: those with most steps left, so that what is nearly done is ended."""
    over: list[Row] = []
    for user, limit in limits.items():
        over += sorted((row for row in running if row.job.user == user), key=lambda row: row.left)[limit:]
    return over


def displaced(
    running: Sequence[Row],
    waiting: Waiting,
    places: int,
    seatable: Callable[[Row], bool],
    limits: Mapping[UserKey, int],
) -> list[Row]:
    """The rows to park now. `places` are free in the batch; `seatable` says whether a slot can be had for a row. No
    room is made for rows beyond their user's limit.

    Where they do not suffice, users, and within a user generations, are brought to equal numbers of running rows. Where
    all slots are held, the adapter that has run longest beyond QUANTUM gives way to a user who has nothing running.
    """
    able = {
        user: Counter({job: len(rows) for job, rows in jobs.items() if seatable(rows[0])})
        for user, jobs in waiting.items()
    }
    active = Counter(row.job.user for row in running)
    blocked = any(not jobs and user not in active for user, jobs in able.items())
    parked = _longest_slot(running) if blocked else []
    rest = [row for row in running if row not in parked]
    places += len(parked)
    demand = Counter(
        {
            user: min(jobs.total(), limits.get(user, jobs.total() + active[user]) - active[user])
            for user, jobs in able.items()
        }
    )
    crowded = demand.total() > places
    parked += _surplus(rest, demand, places, lambda row: row.job.user)
    for user in active.keys() & able.keys() - limits.keys() if crowded else ():
        mine = [row for row in rest if row.job.user == user and row not in parked]
        parked += _surplus(mine, able[user], 0, lambda row: row.job)
    return parked


def _surplus(rows: Sequence[Row], demand: Counter[P], places: int, party: Callable[[Row], P]) -> list[Row]:
    """Rows of the richest parties, as many as bring the poorest waiting ones level once the free places are filled."""
    left, parked = list(rows), list[Row]()
    held, jobs = Counter(party(row) for row in left), Counter(row.job for row in left)
    if demand.total() <= places:
        return parked
    poorest = [(held[each], number, each) for number, each in enumerate(demand) if demand[each]]
    heapq.heapify(poorest)
    while poorest:
        _, number, poor = heapq.heappop(poorest)
        if places:
            places -= 1
        elif row := _giving_way(left, held, jobs, poor, party):
            left.remove(row)
            parked.append(row)
            held[party(row)] -= 1
            jobs[row.job] -= 1
        else:
            break
        held[poor] += 1
        demand[poor] -= 1
        if demand[poor]:
            heapq.heappush(poorest, (held[poor], number, poor))
    return parked


def _giving_way(
    rows: Sequence[Row], held: Counter[P], jobs: Counter[Job], poor: P, party: Callable[[Row], P]
) -> Row | None:
    """Of the richest party the row, in its largest generation, that has most steps left."""
    richest = max((held[party(row)] for row in rows), default=0)
    if richest - held[poor] >= 2:
        rich = (row for row in rows if held[party(row)] == richest)
        return max(rich, key=lambda row: (jobs[row.job], row.left))
    if held[poor]:
        return None
    long = [row for row in rows if row.stint >= QUANTUM and held[party(row)] == 1]
    return max(long, key=lambda row: row.stint, default=None)


def _longest_slot(rows: Sequence[Row]) -> list[Row]:
    """The rows of one adapter, all of which have had their quantum; none when there is no such adapter."""
    groups: dict[AdapterKey, list[Row]] = {}
    for row in rows:
        if row.slot and row.adapter is not None:
            groups.setdefault(row.adapter.key, []).append(row)
    long = [group for group in groups.values() if min(row.stint for row in group) >= QUANTUM]
    return max(long, key=lambda group: min(row.stint for row in group), default=[])
