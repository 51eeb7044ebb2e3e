"""The main job over sockets, and an exit code that says whether the loop learnt."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from papa_serving.cli import demo_command
from papa_serving.client import Client
from papa_serving.contracts.errors import ItemNotFound
from papa_serving.demo.evaluation import Evaluation, evaluate, goal
from papa_serving.demo.loop import DemoPlan, Round, run_demo
from papa_serving.demo.shopper import Shopper
from papa_serving.local.failure import Failure
from PIL import Image

from tests.cli.conftest import Ended, Papa
from tests.demo.learner import BrightnessOracle, Learner
from tests.gateway.support.service import Service

PLAN = DemoPlan(rounds=3, per_round=8, evaluation_items=60, glance_items=8, glance_every=2)


@pytest.fixture
def shopper() -> Shopper:
    return Shopper(BrightnessOracle(), {5})  # type: ignore[arg-type]


async def test_each_round_waits_for_the_revision_that_learnt_from_it(
    service: Service, learner: Learner, shopper: Shopper
) -> None:
    seen: list[Evaluation] = []
    rounds: list[Round] = []
    with Client(service.gateway.address) as client:
        (result,) = await asyncio.to_thread(run_demo, client, [shopper], PLAN, seen.extend, rounds.extend)
    assert result.rounds == tuple(rounds)
    assert [each.revision for each in rounds] == ["000001-aa", "000002-aa", "000003-aa"]
    assert [each.liked for each in rounds] == [2, 4, 6]
    assert [each.success for each in rounds] == [None, 0.75, None]
    assert seen == [result.before]
    assert (result.before.success, result.after.success) == (0.25, 1.0)
    assert (result.state.likes, result.state.dislikes, result.state.pending_events) == (12, 12, 0)


async def test_what_is_measured_does_not_teach_and_is_never_what_was_shown(
    service: Service, learner: Learner, shopper: Shopper
) -> None:
    with Client(service.gateway.address) as client:
        await asyncio.to_thread(run_demo, client, [shopper], PLAN, lambda _: None, lambda _: None)
    runs = [(request.seed, request.count, request.exploration) for request in service.engine.requests]
    shown = {seed + index for seed, count, exploration in runs if exploration < 0 for index in range(count)}
    measured = {seed + index for seed, count, exploration in runs if exploration == 0 for index in range(count)}
    assert len(shown) == 24
    assert len(measured) == 60
    assert not shown & measured
    assert len(service.log.accepted) == 24


async def test_a_second_shopper_is_another_user_with_items_and_measurements_of_its_own(
    service: Service, learner: Learner, shopper: Shopper
) -> None:
    dark = Shopper(BrightnessOracle(), {0})  # type: ignore[arg-type]
    rounds: list[Sequence[Round]] = []
    with Client(service.gateway.address) as client:
        results = await asyncio.to_thread(run_demo, client, [shopper, dark], PLAN, lambda _: None, rounds.append)
    assert results[0].user != results[1].user
    assert [[each.liked for each in done] for done in rounds] == [[2, 6], [4, 4], [6, 2]]
    assert [len(each.before.items) for each in results] == [60, 40]
    assert [(each.before.success, each.after.success) for each in results] == [(0.25, 1.0), (0.75, 0.0)]
    measured = {item.seed for item in results[0].before.items}
    assert not measured & {item.seed for item in results[1].before.items}


async def test_a_refused_rating_ends_the_demo(service: Service, learner: Learner, shopper: Shopper) -> None:
    service.log.refusals = _Refusing()  # type: ignore[assignment]
    with Client(service.gateway.address) as client, pytest.raises((Failure, ItemNotFound), match="expired"):
        await asyncio.to_thread(run_demo, client, [shopper], PLAN, lambda _: None, lambda _: None)


class _Refusing(dict[str, ItemNotFound]):
    def __contains__(self, event_id: object) -> bool:
        return True

    def __getitem__(self, event_id: str) -> ItemNotFound:
        return ItemNotFound("expired")


async def test_evaluation_counts_classes(service: Service, learner: Learner) -> None:
    with Client(service.gateway.address) as client:
        both = Shopper(BrightnessOracle(), {0, 5})  # type: ignore[arg-type]
        found = await asyncio.to_thread(evaluate, client, "alice", both, 0, 60)
        one = Shopper(BrightnessOracle(), {7})  # type: ignore[arg-type]
        none = await asyncio.to_thread(evaluate, client, "alice", one, 0, 4)
    assert found.success == 1.0
    assert found.coverage == pytest.approx(0.811278, abs=1e-6)  # H(1/4) in bits
    assert (none.success, none.coverage) == (0.0, 0.0)


def test_the_goal_suits_rare_and_frequent_tastes() -> None:
    assert goal(0.3) == goal(0.25) == 0.7
    assert goal(0.05) == pytest.approx(0.5)
    assert goal(0.4) == pytest.approx(0.7)
    assert goal(0.6) == pytest.approx(0.8)
    rates = [each / 100 for each in range(101)]
    assert all(goal(low) <= goal(high) + 1e-9 for low, high in itertools.pairwise(rates))
    assert all(goal(rate) > rate for rate in rates[:-1])


async def demonstrate(papa: Papa, monkeypatch: pytest.MonkeyPatch, address: str, *arguments: str) -> Ended:
    monkeypatch.setattr(demo_command, "_oracle", BrightnessOracle)
    options = ["--taste", "5", "--hard", "0", "--rounds", "3", "--per-round", "8", "--address", address, *arguments]
    return await asyncio.to_thread(papa, "demo", *options)


async def test_the_command_shows_saves_and_succeeds_when_the_loop_learns(
    papa: Papa, monkeypatch: pytest.MonkeyPatch, service: Service, learner: Learner, tmp_path: Path
) -> None:
    ended = await demonstrate(papa, monkeypatch, service.gateway.address, "--out", "shown")
    assert ended.code == 0, ended.err
    assert "the loop has adapted: success 0.25 → 1.00 (goal 0.70)" in ended.out
    assert "round  3: liked  6 and  2 of 8" in ended.out
    figures = json.loads((tmp_path / "shown" / "figures.json").read_text())
    assert figures["adapted"] is True
    assert figures["taste"] == [5]
    assert len(figures["rounds"]) == 3
    assert [(each["taste"], each["adapted"]) for each in figures["others"]] == [([0], False)]
    for name in ("contact_sheet.png", "curve.png"):
        with Image.open(tmp_path / "shown" / name) as image:
            assert min(image.size) > 200


@pytest.mark.parametrize("learner", [False], indirect=True)
async def test_the_command_fails_when_the_loop_does_not_learn(
    papa: Papa, monkeypatch: pytest.MonkeyPatch, service: Service, learner: Learner, tmp_path: Path
) -> None:
    ended = await demonstrate(papa, monkeypatch, service.gateway.address)
    assert ended.code == 1
    assert "the loop has not adapted: success 0.25 on fresh samples, 0.70 wanted" in ended.err
    assert json.loads((tmp_path / "demo-out" / "figures.json").read_text())["adapted"] is False


@pytest.mark.parametrize("taste", ["", "ten", "1,10", "0,1,2,3,4,5,6,7,8,9"])
def test_a_taste_that_is_none_is_refused_at_once(papa: Papa, taste: str) -> None:
    ended = papa("demo", "--taste", taste)
    assert ended.code == 1
    assert "--taste takes one to nine classes" in ended.err


def test_so_is_a_hard_taste(papa: Papa) -> None:
    ended = papa("demo", "--hard", "1,10")
    assert ended.code == 1
    assert "--hard takes one to nine classes" in ended.err
