"""Figures 6 to 8, 11 and 21: the fine-grained objective. A picture's size as JPEG is the score, feedback is graded.

The sheets of these runs are drawn by the script `sheets`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from benchmarks.alignment.aggregate import Loaded, grouped
from benchmarks.alignment.figures.drawing import Figure, command, panels


def figures(loaded: Mapping[str, Loaded]) -> Iterator[Figure]:
    """Mean grade and mean size, for a user who likes what is small and one who likes what is large."""
    if loaded["jpeg"]:
        lines = grouped(loaded["jpeg"], lambda run: "large liked" if run.score.endswith("-") else "small liked")
        measures = panels(lines, measures=("mean_grade", "jpeg_bytes"))
        yield Figure("jpeg", "Graded feedback by compressed size", measures, compares=False)


if __name__ == "__main__":
    command(figures)
