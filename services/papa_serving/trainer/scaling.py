"""Decides how many trainers there should be, as a pure function of their reports."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import Enum

from papa_serving.settings import Settings

STEP = 2.0
"""The largest factor by which their number grows at once."""

PACE = 0.1
"""The share of the excess age that must disappear within one upscale_delay. Slower progress calls for more trainers."""

ROOM = 0.7
"""The largest expected utilisation of the remaining trainers at which one may be removed."""


@dataclass(frozen=True)
class Limits:
    """`least` and `most` trainers; the other fields are those of trainer.autoscaling."""

    least: int
    most: int
    target_age: float
    upscale_delay: float
    downscale_delay: float


@dataclass(frozen=True)
class Load:
    """The sum of the trainers' reports.

    `oldest_age` is that of the oldest unapplied event in seconds, `busy` how many seconds they train in one second
    (2.0: two trainers without a pause); `complete` says that all have answered.
    """

    oldest_age: float
    busy: float
    complete: bool


class Call(Enum):
    """The change that a load calls for."""

    MORE, FEWER, NOTHING = range(3)


@dataclass(frozen=True)
class Window:
    """A period in which every load called for the same change, from `begun` to `last` (monotonic seconds).

    `age` is that of the oldest event at its beginning, `trained` the training time within it in seconds.
    """

    call: Call
    begun: float
    age: float
    last: float
    trained: float = 0.0


@dataclass(frozen=True)
class Scaling:
    """The `desired` number of trainers, and the current window."""

    desired: int
    window: Window | None = None


def limits(settings: Settings) -> Limits:
    """The limits of a deployment. More trainers than partitions would be idle."""
    mine, scaling = settings.trainer, settings.trainer.autoscaling
    most = max(mine.actors, min(scaling.max_actors, settings.feedback.partitions))
    return Limits(mine.actors, most, scaling.target_age, scaling.upscale_delay, scaling.downscale_delay)


def decide(before: Scaling, load: Load, now: float, limits: Limits) -> Scaling:
    """The next state. A change begins a new window, so the delays also separate two changes.

    The number grows when the oldest event has been older than the target for `upscale_delay` and its age does not fall
    at PACE. It grows by the ratio of age to target, at most by the factor STEP. It falls by one when for
    `downscale_delay` the oldest event was younger than half the target and the other trainers could have done the
    work. It does not change while a trainer has not answered, for instance because it waits for a machine.
    """
    call = _call(load, before.desired, limits)
    window = before.window
    if window is None or window.call is not call:
        return replace(before, window=Window(call, now, load.oldest_age, now))
    trained = window.trained + load.busy * (now - window.last)
    window = replace(window, last=now, trained=trained)
    length = now - window.begun
    if call is Call.MORE and length >= limits.upscale_delay:
        mends = window.age - load.oldest_age >= PACE * (window.age - limits.target_age)
        return Scaling(before.desired if mends else _grown(before.desired, load, limits))
    if call is Call.FEWER and length >= limits.downscale_delay:
        fits = trained <= ROOM * (before.desired - 1) * length
        return Scaling(before.desired - 1 if fits else before.desired)
    return replace(before, window=window)


def _call(load: Load, desired: int, limits: Limits) -> Call:
    if load.complete and load.oldest_age > limits.target_age and desired < limits.most:
        return Call.MORE
    if load.complete and load.oldest_age <= limits.target_age / 2 and desired > limits.least:
        return Call.FEWER
    return Call.NOTHING


def _grown(desired: int, load: Load, limits: Limits) -> int:
    return min(limits.most, math.ceil(desired * min(STEP, load.oldest_age / limits.target_age)))
