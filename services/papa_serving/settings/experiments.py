"""Settings of experiments: which share of the users gets what."""

from __future__ import annotations

import math
import re
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from papa_serving.contracts.limits import MAX_OVERDRAW
from papa_serving.settings.section import Section

MAX_EXPERIMENTS, MAX_ARMS = 8, 8
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")


class Arm(Section):
    """What the users of an arm get, where their request asks for nothing else."""

    share: float = Field(gt=0, le=1, description="of the users; the shares of an experiment's arms sum to 1")
    holdout: bool = Field(False, description="serve the backbone without an adapter")
    exploration: float | None = Field(None, ge=0, le=1, description="share of items drawn from the backbone")
    min_like_probability: float | None = Field(None, ge=0, le=1, description="the least like probability of an item")
    overdraw: float | None = Field(None, ge=1, le=MAX_OVERDRAW, description="draws at most, in multiples of the items")

    @property
    def options(self) -> dict[str, float | str]:
        """The fields of a request that the arm sets."""
        given = {
            "exploration": self.exploration,
            "min_like_probability": self.min_like_probability,
            "overdraw": self.overdraw,
        }
        held = {"revision": "base"} if self.holdout else {}
        return {**held, **{name: value for name, value in given.items() if value is not None}}


def _named(named: dict[str, Arm]) -> dict[str, Arm]:
    check_names(named, "arm")
    return named


def check_names(names: dict[str, Arm] | dict[str, Experiment], what: str) -> None:
    """Raises ValueError for a name that is none: they are labels of metrics and parts of keys."""
    for name in names:
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"{name!r} names no {what}: 1 to 32 of a-z, 0-9, - and _, beginning with a letter or digit"
            )


class Experiment(Section):
    """One experiment. A user's arm depends on the salt, the tenant and the user alone."""

    salt: str = Field(
        pattern=r"^[A-Za-z0-9._-]{1,64}$",
        description="another salt draws the users anew and begins to count at nothing",
    )
    arms: Annotated[dict[str, Arm], AfterValidator(_named)] = Field(
        min_length=2,
        max_length=MAX_ARMS,
        description="by name; the first holdout by name, or else the first arm, is the baseline",
    )

    @model_validator(mode="after")
    def _shares_sum_to_one(self) -> Experiment:
        if not math.isclose(total := sum(arm.share for arm in self.arms.values()), 1.0, abs_tol=1e-6):
            raise ValueError(f"the shares of the arms must sum to 1, not {total:g}")
        return self

    @property
    def baseline(self) -> str:
        """The arm with which the others are compared."""
        return min(self.arms, key=lambda name: (not self.arms[name].holdout, name))

    @property
    def options(self) -> set[str]:
        """The fields of a request in which the arms differ."""
        return {name for arm in self.arms.values() for name in arm.options}


def checked(experiments: dict[str, Experiment]) -> dict[str, Experiment]:
    """Raises ValueError for bad names, or for two experiments that set the same field."""
    check_names(experiments, "experiment")
    if len(experiments) > MAX_EXPERIMENTS:
        raise ValueError(f"there may be {MAX_EXPERIMENTS} experiments")
    owners: dict[str, str] = {}
    for name, experiment in experiments.items():
        for option in sorted(experiment.options):
            if option in owners:
                raise ValueError(f"the experiments {owners[option]} and {name} both decide {option}")
            owners[option] = name
    return experiments


Experiments = Annotated[dict[str, Experiment], AfterValidator(checked)]
