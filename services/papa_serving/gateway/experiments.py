"""Experiments: assigns users to arms, counts what each arm shows and what follows, and reports how the arms differ."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from papa_serving.attribution.assignment import Assigned, assigned, tally_key
from papa_serving.attribution.lift import Interval, Sums, difference, rate_interval, relative_lift
from papa_serving.contracts.attribution import MEASURES, ActivityLog, ArmSums, Count
from papa_serving.contracts.errors import PapaError
from papa_serving.contracts.feedback import FeedbackEvent
from papa_serving.contracts.identity import UserKey
from papa_serving.gateway.behind import Behind
from papa_serving.metrics import EXPERIMENT_EVENTS, EXPERIMENT_RATE, EXPERIMENT_SHOWN
from papa_serving.settings.experiments import Experiment

log = logging.getLogger(__name__)

OBSERVE_SECONDS = 30.0
"""Time between two looks at the sums, for the metrics."""


@dataclass(frozen=True)
class Rate:
    """One measure of one arm: events, the rate per item shown, and how it differs from the baseline's, None for the
    baseline itself. `lift` is the relative difference, None where nothing can be said of it."""

    measure: str
    hits: int
    rate: Interval
    difference: Interval | None = None
    lift: Interval | None = None


@dataclass(frozen=True)
class ArmReport:
    """One arm: its share of the users, the users seen, the items that they were shown, and the rates."""

    arm: str
    share: float
    users: int
    shown: int
    rates: tuple[Rate, ...]


@dataclass(frozen=True)
class Report:
    """One experiment."""

    experiment: str
    salt: str
    baseline: str
    arms: tuple[ArmReport, ...]


class Trials:
    """The experiments of a deployment. Counting happens behind the calls; what a failure loses is not counted."""

    def __init__(self, activity: ActivityLog, experiments: Mapping[str, Experiment], behind: Behind) -> None:
        self._activity, self._experiments, self._behind = activity, experiments, behind
        self._observing: asyncio.Task[None] | None = None

    def assign(self, user: UserKey, asked: Collection[str]) -> Assigned:
        """The arms of a user whose request sets the fields `asked`."""
        return assigned(self._experiments, user, asked)

    def shown(self, user: UserKey, arms: Mapping[str, str], items: int) -> None:
        """Counts items that a user of these arms was shown."""
        for experiment, arm in arms.items():
            EXPERIMENT_SHOWN.labels(experiment, arm).inc(items)
        self._count({user: (arms, Count(shown=items))})

    def did(self, events: Iterable[FeedbackEvent]) -> None:
        """Counts accepted events about what the service has shown."""
        counted: dict[UserKey, dict[str, int]] = {}
        for event in events if self._experiments else ():
            if measure := measure_of(event):
                numbers = counted.setdefault(event.user, {})
                numbers[measure] = numbers.get(measure, 0) + 1
        news = {user: (self.assign(user, ()).arms, Count(**numbers)) for user, numbers in counted.items()}
        for arms, count in news.values():
            for experiment, arm in arms.items():
                for measure in MEASURES:
                    EXPERIMENT_EVENTS.labels(experiment, arm, measure).inc(getattr(count, measure))
        self._count(news)

    async def report(self, tenant: str) -> list[Report]:
        """The state of all experiments among a tenant's users, "" for all. Raises StorageUnavailable."""
        trials = self._experiments.items()
        names = [(name, arm, f"{tally_key(name, each)}/{arm}") for name, each in trials for arm in each.arms]
        sums = await self._activity.sums(tenant, [key for _, _, key in names])
        found = {(name, arm): each for (name, arm, _), each in zip(names, sums, strict=True)}
        return [_report(name, each, {arm: found[name, arm] for arm in each.arms}) for name, each in trials]

    def begin(self) -> None:
        """Keeps the metrics of the rates true from now on, where there are experiments."""
        if self._experiments:
            self._observing = asyncio.create_task(self._observe())

    async def close(self) -> None:
        """Ends the observation."""
        if self._observing is not None:
            self._observing.cancel()
            await asyncio.gather(self._observing, return_exceptions=True)

    async def observe(self) -> None:
        """Sets the metrics of the rates, over all tenants. Raises StorageUnavailable."""
        for report in await self.report(""):
            for arm in report.arms:
                for rate in arm.rates:
                    for bound in ("estimate", "low", "high"):
                        value = getattr(rate.rate, bound)
                        EXPERIMENT_RATE.labels(report.experiment, arm.arm, rate.measure, bound).set(value)

    async def _observe(self) -> None:
        while True:
            try:
                await self.observe()
            except PapaError as error:
                log.warning("the sums of experiments cannot be read: %s", error)
            await asyncio.sleep(OBSERVE_SECONDS)

    def _count(self, news: Mapping[UserKey, tuple[Mapping[str, str], Count]]) -> None:
        for user, (arms, count) in news.items():
            if arms and not self._behind.full:
                counts = {f"{tally_key(name, self._experiments[name])}/{arm}": count for name, arm in arms.items()}
                self._behind.begin(self._store(user, counts))

    async def _store(self, user: UserKey, counts: Mapping[str, Count]) -> None:
        try:
            await self._activity.count(user, counts)
        except PapaError as error:
            log.warning("an experiment did not count: %s", error, extra={"reason": error.reason})


def measure_of(event: FeedbackEvent) -> str:
    """What an event counts as, "" for nothing: one of a type, or a bare like, about an item of the service or with an
    origin. A history from elsewhere says nothing of an arm."""
    about = event.attribution
    if not (event.item_id or about.generation_id or about.recommendation_id):
        return ""
    if about.type:
        return about.type if about.type in MEASURES else ""
    return "like" if event.grade > 0 else ""


def _report(name: str, experiment: Experiment, sums: Mapping[str, ArmSums]) -> Report:
    baseline = sums[experiment.baseline]
    arms = [
        ArmReport(
            arm,
            experiment.arms[arm].share,
            each.users,
            each.shown,
            tuple(_rate(measure, each, None if arm == experiment.baseline else baseline) for measure in MEASURES),
        )
        for arm, each in sums.items()
    ]
    return Report(name, experiment.salt, experiment.baseline, tuple(arms))


def _rate(measure: str, sums: ArmSums, baseline: ArmSums | None) -> Rate:
    own = _sums(sums, measure)
    if baseline is None:
        return Rate(measure, own.hits, rate_interval(own))
    other = _sums(baseline, measure)
    return Rate(measure, own.hits, rate_interval(own), difference(own, other), relative_lift(own, other))


def _sums(sums: ArmSums, measure: str) -> Sums:
    return Sums(sums.users, sums.shown, sums.shown_squared, *sums.measures.get(measure, (0, 0, 0)))
