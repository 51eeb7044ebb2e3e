"""Decides how many trainers there should be: a pure function of what they report."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import Enum

from papa_serving.settings import Settings

STEP = 2.0
"""By how much their number grows at once, at most."""

PACE = 0.1
"""The part of what the oldest event is too old by that has to go in one upscale_delay; slower is too slow."""

ROOM = 0.7
"""How busy the trainers that stay may be expected to be when one goes."""


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
    """What the trainers report together.

    `oldest_age` is that of the oldest unapplied event in seconds, `busy` how many seconds they train in one second
    (2.0: two trainers without a pause); `complete` says that all have answered.
    """

    oldest_age: float
    busy: float
    complete: bool


class Call(Enum):
    """What a load calls for."""

    MORE, FEWER, NOTHING = range(3)


@dataclass(frozen=True)
class Window:
    """A time in which the load called for the same without a break, from `begun` to `last` (monotonic seconds).

    `age` is that of the oldest event when it began, `trained` what the trainers have trained in it (seconds).
    """

    call: Call
    begun: float
    age: float
    last: float
    trained: float = 0.0


@dataclass(frozen=True)
class Scaling:
    """The `desired` number, and the window in which it may come to change."""

    desired: int
    window: Window | None = None


def limits(settings: Settings) -> Limits:
    """Those of a deployment. A trainer beyond the number of partitions would have nothing to do."""
    mine, scaling = settings.trainer, settings.trainer.autoscaling
    most = max(mine.actors, min(scaling.max_actors, settings.feedback.partitions))
    return Limits(mine.actors, most, scaling.target_age, scaling.upscale_delay, scaling.downscale_delay)


def decide(before: Scaling, load: Load, now: float, limits: Limits) -> Scaling:
    """The next state. A change begins a new window, so that the delays are pauses between two changes as well.

    More, when the oldest event has been older than the target for `upscale_delay` and that does not get better at PACE:
    age over target times as many, STEP times at most. One fewer, when for `downscale_delay` the oldest was younger than
    half the target and the others could have done the work. Neither while a trainer has not answered, as one that waits
    for its machine does not.
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
