"""The loop of the demo: generate, rate, wait for the new revision, repeat; several shoppers at a time."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from papa_serving.client import Client, FeedbackEvent, UserState
from papa_serving.demo.evaluation import Evaluation, evaluate
from papa_serving.demo.shopper import Shopper
from papa_serving.local.failure import Failure

EVALUATION_SEED = 2**40
_LEARNING_SECONDS = 120.0


@dataclass(frozen=True)
class DemoPlan:
    """The plan: rounds of `per_round` rated items. The first shopper looks at `evaluation_items` fresh samples before
    and after, and at `glance_items` of them every `glance_every` rounds; any other at `other_items` twice."""

    rounds: int = 12
    per_round: int = 10
    seed: int = 0
    evaluation_items: int = 100
    other_items: int = 40
    glance_items: int = 30
    glance_every: int = 3


@dataclass(frozen=True)
class Round:
    """One round: how many of the shown items were liked, and the revision that learnt from them.

    `success` is the glance taken after this round, None where there was none. Seconds: `generating` until the items are
    there, `learning` from the feedback until all of it is applied.
    """

    number: int
    shown: int
    liked: int
    revision: str
    generating: float
    learning: float
    success: float | None = None


@dataclass(frozen=True)
class DemoResult:
    """The evaluations before and after, and the rounds between."""

    user: str
    before: Evaluation
    after: Evaluation
    rounds: tuple[Round, ...]
    state: UserState = field(repr=False)


Started = Callable[[Sequence[Evaluation]], None]
Report = Callable[[Sequence[Round]], None]


@dataclass
class _Visit:
    """One shopper's user, and what has happened so far."""

    user: str
    shopper: Shopper
    seed: int
    items: int
    before: Evaluation
    rounds: list[Round] = field(default_factory=list)


def run_demo(
    client: Client, shoppers: Sequence[Shopper], plan: DemoPlan, started: Started, report: Report
) -> list[DemoResult]:
    """Teaches a new user's adapter for each shopper, all in the same rounds. `started` gets the evaluations of the
    backbone, `report` the rounds as they end, each in the order of the shoppers.

    Raises Failure when feedback is refused or not learnt from in time, PapaError when a call fails.
    """
    visits = [_begun(client, shopper, plan, index) for index, shopper in enumerate(shoppers)]
    started([visit.before for visit in visits])
    for number in range(1, plan.rounds + 1):
        done = _round(client, visits, number, plan)
        if number % plan.glance_every == 0 and number < plan.rounds:
            first = visits[0]
            seen = evaluate(client, first.user, first.shopper, first.seed, plan.glance_items)
            done[0] = replace(done[0], success=seen.success)
        for visit, each in zip(visits, done, strict=True):
            visit.rounds.append(each)
        report(done)
    return [_ended(client, visit) for visit in visits]


def _begun(client: Client, shopper: Shopper, plan: DemoPlan, index: int) -> _Visit:
    user = f"demo-{uuid.uuid4().hex[:12]}"
    seed = EVALUATION_SEED + plan.seed * 10_000 + index * plan.evaluation_items
    items = plan.other_items if index else plan.evaluation_items
    return _Visit(user, shopper, seed, items, evaluate(client, user, shopper, seed, items))


def _ended(client: Client, visit: _Visit) -> DemoResult:
    after = evaluate(client, visit.user, visit.shopper, visit.seed, visit.items)
    return DemoResult(visit.user, visit.before, after, tuple(visit.rounds), client.get_user(visit.user))


def _round(client: Client, visits: Sequence[_Visit], number: int, plan: DemoPlan) -> list[Round]:
    """All shoppers rate before any of them waits, so that a trainer may learn from all in one batch."""
    seed = plan.seed * 1_000_000 + number * 1_000
    rated = [_rated(client, visit, plan.per_round, seed) for visit in visits]
    done = []
    for visit, (liked, generating, since) in zip(visits, rated, strict=True):
        state = _wait_until_learnt(client, visit.user)
        revision = state.current_revision.name if state.current_revision else ""
        done.append(Round(number, plan.per_round, liked, revision, generating, time.monotonic() - since))
    return done


def _rated(client: Client, visit: _Visit, count: int, seed: int) -> tuple[int, float, float]:
    """The number of liked items, the seconds until the items were there, and when the ratings were given."""
    started = time.monotonic()
    generation = client.generate(visit.user, count, seed=seed)
    generated = time.monotonic()
    likes = visit.shopper.likes(generation.items)
    events = [
        FeedbackEvent(visit.user, 1.0 if liked else -1.0, item_id=item.item_id)
        for item, liked in zip(generation.items, likes, strict=True)
    ]
    refused = [outcome.error for outcome in client.submit_feedback(events) if outcome.error]
    if refused:
        raise Failure(f"{len(refused)} of {count} ratings were refused: {refused[0].message}", refused[0].reason)
    return sum(likes), generated - started, generated


def _wait_until_learnt(client: Client, user: str) -> UserState:
    """The state in which every accepted event is in a revision, or has been set aside as a dead letter."""
    for state in client.watch_user(user, timeout=_LEARNING_SECONDS):
        if not state.pending_events:
            return state
    raise Failure("the stream of the user's changes has ended", "papa users get shows the user's state")
