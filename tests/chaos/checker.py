"""The checker: what a history and the final state must have in common. Pure functions, one rule each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

from tests.chaos.history import HELD_BACK, Applied, Final, History, Left, Moved, Seen, Submitted


@dataclass(frozen=True)
class Violation:
    """A broken promise: which rule, whose, and what was seen."""

    rule: str
    user: str
    what: str


@dataclass(frozen=True)
class Story:
    """One user's part of a history, and what is left of them."""

    user: str
    submitted: tuple[Submitted, ...]
    moved: tuple[Moved, ...]
    seen: tuple[Seen, ...]
    left: Left

    @property
    def acknowledged(self) -> list[Submitted]:
        return [each for each in self.submitted if each.outcome == "acknowledged"]

    @property
    def applied(self) -> list[str]:
        return [event for revision in self.left.lineage for event in revision.events]

    def moves(self, *kinds: str) -> list[Moved]:
        return [each for each in self.moved if each.kind in kinds]


Rule = Callable[[Story], Iterator[str]]


def check(history: History, final: Final) -> list[Violation]:
    """Everything that is wrong; empty when all promises were kept."""
    history = as_promised(history, final)
    users = {each.user for each in (*history.submitted, *history.moved, *history.seen)} | final.users.keys()
    found = [] if final.settled else [Violation("settled", "", "accepted events were still pending at the end")]
    for user in sorted(users):
        story = Story(
            user,
            tuple(each for each in history.submitted if each.user == user),
            tuple(each for each in history.moved if each.user == user),
            tuple(each for each in history.seen if each.user == user),
            final.users.get(user, Left()),
        )
        found += [Violation(rule.__name__, user, what) for rule in RULES for what in rule(story)]
    return found


def as_promised(history: History, final: Final) -> History:
    """What everysec does not promise is taken for unknown: what happened within HELD_BACK before a kill that found
    writes held back. An event that was acknowledged then, and is there, stays acknowledged."""

    def doubtful(at: float) -> bool:
        return any(killed - HELD_BACK <= at <= killed for killed in history.held_back)

    there = {event for left in final.users.values() for event in _kept(left)}

    def lost(each: Submitted) -> bool:
        return each.outcome == "acknowledged" and doubtful(each.ended) and each.event_id not in there

    return replace(
        history,
        submitted=tuple(replace(each, outcome="unknown") if lost(each) else each for each in history.submitted),
        moved=tuple(replace(each, known=each.known and not doubtful(each.ended)) for each in history.moved),
        seen=tuple(each for each in history.seen if not doubtful(each.ended)),
    )


def _kept(left: Left) -> set[str]:
    return {*(event for revision in left.lineage for event in revision.events), *left.letters, *left.pending}


def nothing_lost(story: Story) -> Iterator[str]:
    """An acknowledged event is in the lineage, a dead letter, or gone with its user."""
    if story.left.deleted or story.moves("delete"):
        return
    kept = _kept(story.left)
    for each in story.acknowledged:
        if each.event_id not in kept:
            yield f"{each.event_id} was acknowledged as number {each.sequence} and is nowhere"


def nothing_twice(story: Story) -> Iterator[str]:
    """No event is applied twice, or both applied and dead or pending."""
    for event, times in Counter([*story.applied, *story.left.letters, *story.left.pending]).items():
        if times > 1:
            yield f"{event} stands {times} times"


def nothing_invented(story: Story) -> Iterator[str]:
    """Only submitted events are there, and none that was refused."""
    outcome = {each.event_id: each.outcome for each in story.submitted}
    for event in (*story.applied, *story.left.letters, *story.left.pending):
        if event not in outcome:
            yield f"{event} was never submitted"
        elif outcome[event] == "refused":
            yield f"{event} was refused and is there all the same"


def nothing_pending(story: Story) -> Iterator[str]:
    """Once all work is done, nothing waits."""
    if story.left.pending:
        yield f"{len(story.left.pending)} events wait for ever, the first is {story.left.pending[0]}"


def lineage_is_a_chain(story: Story) -> Iterator[str]:
    """Each revision's parent is the one before it, or one that a rollback or reset pointed at in between."""
    turned_to = {each.target for each in story.moves("rollback")} | {"" for _ in story.moves("reset")}
    names = [""]
    for revision in story.left.lineage:
        if revision.parent not in names:
            yield f"{revision.revision} has the parent {revision.parent!r}, which is not before it"
        elif revision.parent != names[-1] and revision.parent not in turned_to:
            yield f"{revision.revision} forks off {revision.parent or 'the base'} beside {names[-1]}"
        names.append(revision.revision)


def files_are_whole(story: Story) -> Iterator[str]:
    """Every revision of the lineage has its files, whose manifest says the same as the record."""
    for revision in story.left.lineage:
        if not revision.whole:
            yield f"the files of {revision.revision} are not those of its record"
        elif revision.manifest_parent != revision.parent:
            yield f"the manifest of {revision.revision} names the parent {revision.manifest_parent!r}"


def weights_follow_the_lineage(story: Story) -> Iterator[str]:
    """A revision's weights are its parent's and its own events, no more, no less."""
    known: dict[str, tuple[str, ...] | None] = {"": ()}
    for revision in story.left.lineage:
        before = known.get(revision.parent)
        if revision.learned is not None and before is not None and revision.learned != (*before, *revision.events):
            yield f"{revision.revision} was not trained from {revision.parent or 'the base'}"
        known[revision.revision] = revision.learned


def pointer_is_right(story: Story) -> Iterator[str]:
    """The pointer names the newest revision, unless a rollback or reset moved it."""
    names = [each.revision for each in story.left.lineage]
    current = story.left.current
    if current and current not in names:
        yield f"the pointer names {current}, which is not in the lineage"
    elif current != (names[-1] if names else "") and not story.moves("rollback", "reset"):
        yield f"the pointer names {current or 'the base'} and not the newest revision {names[-1]}"


def sequences_are_unique(story: Story) -> Iterator[str]:
    """No two acknowledged events have the same sequence."""
    for sequence, times in Counter(each.sequence for each in story.acknowledged).items():
        if times > 1:
            yield f"{times} acknowledged events have the number {sequence}"


def order_of_acceptance(story: Story) -> Iterator[str]:
    """An event that was sent after another's acknowledgement has the higher number."""
    by_end = sorted(story.acknowledged, key=lambda each: each.ended)
    for later in story.acknowledged:
        for earlier in by_end:
            if earlier.ended >= later.invoked:
                break
            if earlier.sequence >= later.sequence:
                yield f"{later.event_id} ({later.sequence}) was sent after {earlier.event_id} ({earlier.sequence})"


def order_of_application(story: Story) -> Iterator[str]:
    """Events are applied in the order of their numbers, by revisions whose ranges follow one another."""
    number = {each.event_id: each.sequence for each in story.acknowledged}
    known = [(number[event], event) for event in story.applied if event in number]
    for (before, _), (after, event) in pairwise(known):
        if after <= before:
            yield f"{event} ({after}) was applied after number {before}"
    for one, other in pairwise(story.left.lineage):
        if other.first_sequence <= one.last_sequence:
            yield f"{other.revision} begins at {other.first_sequence}, {one.revision} ends at {one.last_sequence}"
    for revision in story.left.lineage:
        yield from _outside(revision, number)


def _outside(revision: Applied, number: dict[str, int]) -> Iterator[str]:
    for event in revision.events:
        if event in number and not revision.first_sequence <= number[event] <= revision.last_sequence:
            yield f"{event} ({number[event]}) is outside the range of {revision.revision}"


def reads_never_go_back(story: Story) -> Iterator[str]:
    """What was served was committed; a later read never sees an older revision, unless somebody asked for that."""
    names = {"", *(each.revision for each in story.left.lineage)}
    if story.moves("delete") or story.left.deleted:
        return
    for seen in story.seen:
        if seen.revision not in names:
            yield f"{seen.revision} was served and is not in the lineage"
    if story.moves("rollback", "reset"):
        return
    for earlier in story.seen:
        for later in story.seen:
            if earlier.ended < later.invoked and later.revision < earlier.revision:
                yield f"{later.revision or 'the base'} was served after {earlier.revision}"


def deleted_means_gone(story: Story) -> Iterator[str]:
    """After a deletion nothing is left, nothing more is accepted, and no update in flight brings the user back."""
    deletions = [each for each in story.moves("delete") if each.known]
    left = story.left
    if left.deleted and not story.moves("delete"):
        yield "the user is deleted and nobody asked for it"
    if deletions and not left.deleted:
        yield "the deletion was answered and the user is there"
    if left.deleted and (left.lineage or left.pending or left.letters or left.current):
        yield "something of the deleted user is still in Redis"
    if left.deleted and left.files:
        yield f"files of the deleted user are left: {', '.join(sorted(left.files))}"
    for each in story.acknowledged:
        if any(deletion.ended < each.invoked for deletion in deletions):
            yield f"{each.event_id} was accepted after the deletion"


def counters_agree(story: Story) -> Iterator[str]:
    """The counters of the user's state are the numbers of what is there."""
    left = story.left
    if left.deleted:
        return
    there = len(story.applied) + len(left.letters) + len(left.pending)
    for name, counted, real in (
        ("accepted", left.accepted, there),
        ("pending", left.counted_pending, len(left.pending)),
        ("dead letters", left.counted_letters, len(left.letters)),
    ):
        if counted != real:
            yield f"{counted} {name} are counted, {real} are there"


RULES: tuple[Rule, ...] = (
    nothing_lost, nothing_twice, nothing_invented, nothing_pending, lineage_is_a_chain, files_are_whole,
    weights_follow_the_lineage, pointer_is_right, sequences_are_unique, order_of_acceptance, order_of_application,
    reads_never_go_back, deleted_means_gone, counters_agree,
)  # fmt: skip
