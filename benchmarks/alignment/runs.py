"""Describes one run: a system, a simulated user and a seed. A run's file name begins with its name."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

EVALUATED = (0, 1, 2, 3, 4, 6, 8, 10, 12, 15, 20, 25, 30)
"""Interaction steps at which fresh samples are drawn and measured."""


@dataclass(frozen=True)
class Run:
    """`overrides` changes fields of the system's configuration."""

    system: str
    taste: tuple[int, ...] = ()
    seed: int = 0
    dataset: str = "fashion_mnist"
    rounds: int = 30
    labels: int = 10
    """Items shown, and so labels given, in one interaction step."""
    flipped: float = 0.0
    """Share of labels turned into their opposite."""
    later_taste: tuple[int, ...] = ()
    """The taste from half of the rounds on; empty: it does not change."""
    candidates: int = 0
    """Active selection out of so many candidates; 0 shows what comes first."""
    score: str = ""
    """"jpeg" or "jpeg-": grades by a picture's compressed size instead of a taste."""
    samples: int = 100
    """Evaluation samples; the last evaluation draws `final_samples`."""
    final_samples: int = 300
    evaluated: tuple[int, ...] = EVALUATED
    overrides: tuple[tuple[str, Any], ...] = ()

    @property
    def name(self) -> str:
        """A short name for people; it does not hold all fields of a run."""
        taste = self.score or "".join(map(str, self.taste)) or "all"
        return f"{self.dataset}-{self.system}-{taste}-s{self.seed}"

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Run:
        """The inverse of `asdict` through JSON."""
        known = {each.name for each in fields(cls)}
        tuples = {key: _tuple(value) for key, value in raw.items() if key in known}
        return cls(**tuples)


def _tuple(value: Any) -> Any:
    return tuple(_tuple(each) for each in value) if isinstance(value, list) else value


@dataclass
class Cost:
    """U-Net sample-evaluations so far: a differentiated one counts as three plain ones."""

    differentiated: int = 0
    plain: int = 0

    @property
    def total(self) -> int:
        """The cost in plain evaluations."""
        return 3 * self.differentiated + self.plain


@dataclass(frozen=True)
class Sampling:
    """How every few-step system draws its samples, shown and evaluated alike."""

    sampler: str = "dpmpp_2m"
    steps: int = 12


def overridden(config: Any, overrides: tuple[tuple[str, Any], ...]) -> Any:
    """The frozen dataclass `config` with the overrides that it knows; raises TypeError for one it does not know."""
    return type(config)(**{**{f.name: getattr(config, f.name) for f in fields(config)}, **dict(overrides)})
