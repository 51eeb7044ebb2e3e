"""Assumptions about users, machines and prices; everything else is measured."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Behaviour:
    """How users behave: none of it measured. A generation shows `items`; each of them is rated."""

    daily_active: float = 0.10
    """Share of the users who come on a day."""
    generations: int = 4
    """Generations of each active user on a day; all but the last are rated, and each rating is one update."""
    items: int = 10
    zipf: float = 1.0
    """Exponent of activity by rank."""
    peak: float = 3.0
    """Busiest hour ÷ mean hour."""


@dataclass(frozen=True)
class Kept:
    """How long data are kept, by the settings; the number of revisions is an operator's choice."""

    item_days: float = 1.0
    event_id_days: float = 7.0
    revisions: int = 5
    """Revisions of each user in object storage. The service itself removes none that a lineage names."""


@dataclass(frozen=True)
class Prices:
    """Dollars, round figures of the order of public list prices; assumed on `date`, replace them by your own."""

    date: str = "2026-11-24"
    redis_gib_month: float = 10.0
    object_gib_month: float = 0.023
    two_cores_hour: float = 0.08
    gpu_hour: float = 2.0
    gpu_speed: float = 100.0
    """A GPU ÷ the two cores that were measured, for generations and updates alike: assumed, not measured."""
