"""Decides which users are trained together. Users without a failed attempt share an update; others train alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from papa_serving.settings import TrainerSettings
from papa_serving.trainer.gathering import Gathering, Ready


@dataclass(frozen=True)
class Pick:
    """A ready user, and the gathering that holds the events."""

    gathering: Gathering
    ready: Ready


@dataclass(frozen=True)
class Group:
    """Users of one joint update, and the factor on the size of its steps."""

    picks: tuple[Pick, ...]
    step_scale: float = 1.0


@dataclass(frozen=True)
class Plan:
    """The next steps: bury `exhausted`, then train the `groups`."""

    exhausted: tuple[Pick, ...]
    groups: tuple[Group, ...]


def plan(gatherings: Iterable[Gathering], settings: TrainerSettings, now: float, clock: float) -> Plan:
    """Plans the next updates. Users who have waited longest come first; `now` and `clock` are as in Gathering.ready.

    Users without a failed attempt share one update of at most `max_users`. A user whose last attempt failed is trained
    alone, with steps halved for each time that the gate refused: a damaged update is often only too large. All others
    wait for the next plan. So new feedback is read in between, and many users who failed together (in a joint update
    that killed the process) do not delay the rest.
    """
    picks = [Pick(g, ready) for g in gatherings for ready in g.ready(settings, now, clock)]
    picks.sort(key=lambda pick: pick.ready.since)
    untried = [pick for pick in picks if pick.ready.failures == 0][: settings.max_users]
    exhausted = tuple(pick for pick in picks if pick.ready.failures >= settings.max_attempts)
    alone = [pick for pick in picks if 0 < pick.ready.failures < settings.max_attempts]
    groups = [Group(tuple(untried))] if untried else []
    groups += [Group((pick,), 0.5**pick.ready.refusals) for pick in alone[:1]]
    return Plan(exhausted, tuple(groups))
