"""Cohorts of users by how much they have said: few, fixed, and none of them tells who anybody is.

They follow learning as cohorts by the date of arrival would: do users like more, the more they have taught the service?
"""

from __future__ import annotations

from bisect import bisect_left

_LAST = (10, 30, 100, 300, 1000)

COHORTS = ("1-10", "11-30", "31-100", "101-300", "301-1000", "1001+")
"""By the number of an opinion among its user's: the first ten, the next twenty, and so on."""


def cohort_of(sequence: int) -> str:
    """The cohort in which an accepted event with this sequence counts."""
    return COHORTS[bisect_left(_LAST, sequence)]
