"""The checker sees every kind of broken promise, and nothing wrong in a history that keeps them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.chaos.checker import RULES, check
from tests.chaos.history import Applied, Final, History, Left, Moved, Seen, Submitted

U = "u"


def ack(number: int, at: float | None = None, user: str = U) -> Submitted:
    begun = number * 1.0 if at is None else at
    return Submitted(user, f"e{number}", begun, begun + 0.5, "acknowledged", number)


def made(number: int, parent: str, *events: int, learned: tuple[int, ...] | None = None) -> Applied:
    names = tuple(f"e{event}" for event in events)
    behind = None if learned is None else tuple(f"e{event}" for event in learned)
    return Applied(f"{number:06d}-a", parent, events[0], events[-1], True, parent, names, behind)


ONE, TWO = made(1, "", 1, 2, learned=(1, 2)), made(2, "000001-a", 3, learned=(1, 2, 3))
LEFT = Left(current="000002-a", lineage=(ONE, TWO), letters=("e4",), accepted=4, counted_letters=1)
GOOD = History(
    (ack(1), ack(2), ack(3), ack(4), Submitted(U, "e5", 5.0, 5.5, "refused", reason="BACKLOG_FULL")),
    (),
    (Seen(U, 1.0, 1.1, ""), Seen(U, 2.6, 2.7, "000001-a"), Seen(U, 4.0, 4.1, "000002-a")),
)
DELETED = Moved(U, "delete", "", 6.0, 6.5, True)
ROLLED_BACK = Moved(U, "rollback", "000001-a", 6.0, 6.5, True)


def broken(history: History = GOOD, left: Left = LEFT, **changes: Any) -> set[str]:
    return {violation.rule for violation in check(history, Final({U: replace(left, **changes)}))}


def with_events(*more: Submitted) -> History:
    return replace(GOOD, submitted=(*GOOD.submitted, *more))


def test_a_kept_promise_is_no_violation() -> None:
    assert check(GOOD, Final({U: LEFT})) == []


def test_a_rollback_a_reset_and_a_deletion_are_no_violations_by_themselves() -> None:
    branch = made(3, "000001-a", 5, learned=(1, 2, 5))
    history = replace(with_events(), submitted=(*GOOD.submitted[:4], ack(5, 7.0)), moved=(ROLLED_BACK,))
    assert not broken(history, lineage=(ONE, TWO, branch), current="000003-a", accepted=5)
    afresh = made(3, "", 5, learned=(5,))
    history = replace(history, moved=(Moved(U, "reset", "", 6.0, 6.5, True),))
    assert not broken(history, lineage=(ONE, TWO, afresh), current="000003-a", accepted=5)
    assert not broken(replace(GOOD, moved=(DELETED,)), left=Left(deleted=True))


def test_an_unknown_event_may_be_there_or_not() -> None:
    unknown = Submitted(U, "e6", 6.0, 7.0, "unknown")
    assert not broken(with_events(unknown))
    assert not broken(with_events(unknown), letters=("e4", "e6"), accepted=5, counted_letters=2)


def test_what_a_kill_finds_held_back_is_not_promised_and_all_before_and_after_is() -> None:
    gone = ack(9, 10.0)  # acknowledged at 10.5
    again = replace(ack(9, 13.0), event_id="e10")
    left = replace(LEFT, letters=("e4", "e10"), accepted=5, counted_letters=2)
    lost = replace(with_events(gone, again), seen=(*GOOD.seen, Seen(U, 10.0, 10.6, "000003-b")))
    assert broken(lost, left=left) == {
        "nothing_lost", "sequences_are_unique", "order_of_acceptance", "reads_never_go_back"
    }  # fmt: skip
    assert not broken(replace(lost, held_back=(11.0,)), left=left)
    assert "nothing_lost" in broken(replace(lost, held_back=(10.4, 12.6)), left=left)
    # What is there counts as acknowledged all the same.
    moved = replace(GOOD, held_back=(5.0,))
    assert broken(moved, letters=("e4", "e4"), accepted=5, counted_letters=2) == {"nothing_twice"}


VIOLATIONS: dict[str, tuple[set[str], set[str]]] = {
    "a lost event": (broken(letters=(), accepted=3, counted_letters=0), {"nothing_lost"}),
    "an event in two revisions": (
        broken(lineage=(ONE, replace(TWO, events=("e3", "e2"))), accepted=5),
        {"nothing_twice", "order_of_application", "weights_follow_the_lineage"},
    ),
    "an event applied and dead": (broken(letters=("e4", "e3"), accepted=5, counted_letters=2), {"nothing_twice"}),
    "an event nobody sent": (broken(letters=("e4", "e9"), accepted=5, counted_letters=2), {"nothing_invented"}),
    "a refused event": (broken(letters=("e4", "e5"), accepted=5, counted_letters=2), {"nothing_invented"}),
    "an event that waits for ever": (
        broken(with_events(ack(6)), pending=("e6",), accepted=5, counted_pending=1),
        {"nothing_pending"},
    ),
    "a fork": (
        broken(lineage=(ONE, replace(made(2, "", 3), learned=None))),
        {"lineage_is_a_chain"},
    ),
    "a parent out of nowhere": (
        broken(lineage=(ONE, replace(TWO, parent="000007-a", manifest_parent="000007-a"))),
        {"lineage_is_a_chain"},
    ),
    "damaged files": (broken(lineage=(ONE, replace(TWO, whole=False))), {"files_are_whole"}),
    "a manifest with another parent": (broken(lineage=(ONE, replace(TWO, manifest_parent=""))), {"files_are_whole"}),
    "weights without their parent's": (
        broken(lineage=(ONE, replace(TWO, learned=("e3",)))),
        {"weights_follow_the_lineage"},
    ),
    "a pointer that was left behind": (broken(current="000001-a"), {"pointer_is_right"}),
    "a pointer to nothing": (broken(current="000009-a"), {"pointer_is_right"}),
    "one number twice": (
        broken(with_events(replace(ack(4, 4.0), event_id="e6")), letters=("e4", "e6"), accepted=5, counted_letters=2),
        {"sequences_are_unique"},
    ),
    "an order that is not that of acceptance": (
        broken(replace(GOOD, submitted=(ack(1), ack(2), ack(3), replace(ack(4), invoked=0.1, ended=0.2)))),
        {"order_of_acceptance"},
    ),
    "events of one revision in the wrong order": (
        broken(lineage=(replace(ONE, events=("e2", "e1"), learned=("e2", "e1")), replace(TWO, learned=None))),
        {"order_of_application"},
    ),
    "ranges that overlap": (
        broken(lineage=(ONE, replace(TWO, first_sequence=2))),
        {"order_of_application"},
    ),
    "a range that leaves out its event": (
        broken(lineage=(ONE, replace(TWO, first_sequence=7, last_sequence=7))),
        {"order_of_application"},
    ),
    "a read that went back": (
        broken(replace(GOOD, seen=(*GOOD.seen, Seen(U, 5.0, 5.1, "000001-a")))),
        {"reads_never_go_back"},
    ),
    "a revision served before it was committed": (
        broken(replace(GOOD, seen=(Seen(U, 5.0, 5.1, "000003-b"),))),
        {"reads_never_go_back"},
    ),
    "a user who came back": (broken(replace(GOOD, moved=(DELETED,))), {"deleted_means_gone"}),
    "a user whom nobody deleted": (
        broken(replace(GOOD, submitted=()), left=Left(deleted=True)),
        {"deleted_means_gone"},
    ),
    "files of a deleted user": (
        broken(replace(GOOD, moved=(DELETED,)), left=Left(deleted=True, files=frozenset({"000003-c"}))),
        {"deleted_means_gone"},
    ),
    "events of a deleted user": (
        broken(replace(GOOD, moved=(DELETED,)), left=Left(deleted=True, letters=("e4",))),
        {"deleted_means_gone"},
    ),
    "an event accepted after the deletion": (
        broken(replace(with_events(ack(6, 7.0)), moved=(DELETED,)), left=Left(deleted=True)),
        {"deleted_means_gone"},
    ),
    "a wrong counter": (broken(accepted=5), {"counters_agree"}),
    "a wrong counter of what waits": (broken(counted_pending=1), {"counters_agree"}),
}  # fmt: skip


@pytest.mark.parametrize("name", VIOLATIONS)
def test_a_broken_promise_is_seen(name: str) -> None:
    seen, expected = VIOLATIONS[name]
    assert seen == expected


def test_every_rule_is_broken_by_one_of_these() -> None:
    assert set().union(*(expected for _, expected in VIOLATIONS.values())) == {rule.__name__ for rule in RULES}


def test_work_that_does_not_end_is_a_violation() -> None:
    assert [violation.rule for violation in check(GOOD, Final({U: LEFT}, settled=False))] == ["settled"]


def test_users_do_not_answer_for_each_other() -> None:
    foreign = replace(GOOD, submitted=(*GOOD.submitted, ack(1, user="v")))
    assert {(each.rule, each.user) for each in check(foreign, Final({U: LEFT}))} == {("nothing_lost", "v")}
