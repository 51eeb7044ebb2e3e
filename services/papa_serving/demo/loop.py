"""The loop of the demo: generate, rate, wait for the new revision, repeat."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

from papa_serving.client import Client, FeedbackEvent, UserState
from papa_serving.demo.evaluation import Evaluation, evaluate
from papa_serving.demo.shopper import Shopper
from papa_serving.local.failure import Failure

EVALUATION_SEED = 2**40
_LEARNING_SECONDS = 120.0


@dataclass(frozen=True)
class DemoPlan:
    """The plan: rounds of `per_round` rated items; `evaluation_items` fresh samples before and after, and
    `glance_items` of them every `glance_every` rounds."""

    rounds: int = 12
    per_round: int = 10
    seed: int = 0
    evaluation_items: int = 100
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


Report = Callable[[Round], None]


def run_demo(
    client: Client, shopper: Shopper, plan: DemoPlan, started: Callable[[Evaluation], None], report: Report
) -> DemoResult:
    """Teaches a new user's adapter. `started` gets the evaluation of the backbone, `report` each round as it ends.

    Raises Failure when feedback is refused or not learnt from in time, PapaError when a call fails.
    """
    user = f"demo-{uuid.uuid4().hex[:12]}"
    evaluation_seed = EVALUATION_SEED + plan.seed * 10_000
    before = evaluate(client, user, shopper, evaluation_seed, plan.evaluation_items)
    started(before)
    rounds: list[Round] = []
    for number in range(1, plan.rounds + 1):
        seed = plan.seed * 1_000_000 + number * 1_000
        glance = number % plan.glance_every == 0 and number < plan.rounds
        done = _round(client, user, shopper, number, plan.per_round, seed)
        if glance:
            seen = evaluate(client, user, shopper, evaluation_seed, plan.glance_items)
            done = Round(**{**vars(done), "success": seen.success})
        rounds.append(done)
        report(done)
    after = evaluate(client, user, shopper, evaluation_seed, plan.evaluation_items)
    return DemoResult(user, before, after, tuple(rounds), client.get_user(user))


def _round(client: Client, user: str, shopper: Shopper, number: int, count: int, seed: int) -> Round:
    started = time.monotonic()
    generation = client.generate(user, count, seed=seed)
    generated = time.monotonic()
    likes = shopper.likes(generation.items)
    events = [
        FeedbackEvent(user, 1.0 if liked else -1.0, item_id=item.item_id)
        for item, liked in zip(generation.items, likes, strict=True)
    ]
    refused = [outcome.error for outcome in client.submit_feedback(events) if outcome.error]
    if refused:
        raise Failure(f"{len(refused)} of {count} ratings were refused: {refused[0].message}", refused[0].reason)
    state = _wait_until_learnt(client, user)
    revision = state.current_revision.name if state.current_revision else ""
    return Round(number, count, sum(likes), revision, generated - started, time.monotonic() - generated)


def _wait_until_learnt(client: Client, user: str) -> UserState:
    """The state in which every accepted event is in a revision, or has been set aside as a dead letter."""
    for state in client.watch_user(user, timeout=_LEARNING_SECONDS):
        if not state.pending_events:
            return state
    raise Failure("the stream of the user's changes has ended", "papa users get shows the user's state")
