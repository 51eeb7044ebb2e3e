"""Which arm of each experiment a user is in."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from papa_serving.contracts.identity import UserKey
from papa_serving.settings.experiments import Experiment


@dataclass(frozen=True)
class Assigned:
    """The user's arm of each experiment, by name, and what the arms set of a request."""

    arms: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, float | str] = field(default_factory=dict)


NOT_ASSIGNED = Assigned()


def assigned(experiments: Mapping[str, Experiment], user: UserKey, asked: Collection[str] = ()) -> Assigned:
    """The user's arms. An experiment is left out where the request itself decides a field in which its arms differ:
    `asked` names the fields that it sets."""
    arms: dict[str, str] = {}
    options: dict[str, float | str] = {}
    for name, experiment in experiments.items():
        if experiment.options.isdisjoint(asked):
            arms[name] = arm_of(experiment, user)
            options |= experiment.arms[arms[name]].options
    return Assigned(arms, options)


def arm_of(experiment: Experiment, user: UserKey) -> str:
    """The arm in whose part of [0, 1) the hash of salt, tenant and user lies; the parts are in the order of the names.

    No id contains the separator.
    """
    text = f"{experiment.salt}\0{user.tenant}\0{user.user}".encode()
    place = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) / 2**64
    end = 0.0
    name = ""
    for name in sorted(experiment.arms):
        end += experiment.arms[name].share
        if place < end:
            return name
    return name  # the sum of the shares may be a hair below 1


def tally_key(name: str, experiment: Experiment) -> str:
    """What counts are kept under: another salt begins to count at nothing."""
    return f"{name}@{experiment.salt}"
