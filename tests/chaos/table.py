"""The table that `make chaos` prints: a row for each kind of fault."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from tests.chaos.checker import as_promised
from tests.chaos.run import Result

HEAD = (
    "fault", "schedules", "events", "acknowledged", "applied", "dead", "unknown", "held back", "generated", "restarts",
    "seconds", "violations",
)  # fmt: skip


def table(results: Sequence[Result]) -> str:
    """Aligned columns, and a sum."""
    kinds: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        kinds[result.schedule.kind].append(result)
    rows = [HEAD, *(_row(kind, of_kind) for kind, of_kind in kinds.items()), _row("all", results)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    return "\n".join(_line(row, widths) for row in rows)


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    numbers = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
    return "  ".join((row[0].ljust(widths[0]), *numbers))


def _row(kind: str, results: Iterable[Result]) -> tuple[str, ...]:
    of_kind = list(results)
    outcomes = [each.outcome for result in of_kind for each in result.history.submitted]
    left = [user for result in of_kind for user in result.final.users.values()]
    numbers = (
        len(of_kind),
        len(outcomes),
        outcomes.count("acknowledged"),
        sum(len(revision.events) for user in left for revision in user.lineage),
        sum(len(user.letters) for user in left),
        outcomes.count("unknown"),
        sum(_held_back(result) for result in of_kind),
        sum(result.generated for result in of_kind),
        sum(result.died for result in of_kind),
    )
    seconds = sum(result.seconds for result in of_kind) / len(of_kind)
    violations = sum(len(result.violations) for result in of_kind)
    return (kind, *map(str, numbers), f"{seconds:.1f}", str(violations))


def _held_back(result: Result) -> int:
    """Acknowledged events that Redis had not written when it was killed, as everysec reserves itself to."""
    promised = as_promised(result.history, result.final).submitted
    return sum(before != after for before, after in zip(result.history.submitted, promised, strict=True))
