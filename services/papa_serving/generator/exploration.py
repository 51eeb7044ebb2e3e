"""Which items of a generation are drawn from the base, to keep discovering tastes."""

from __future__ import annotations


def explored(count: int, share: float) -> frozenset[int]:
    """round(share · count) indexes, spread evenly over 0 to count − 1."""
    chosen = round(share * count)
    return frozenset((2 * i + 1) * count // (2 * chosen) for i in range(chosen))
