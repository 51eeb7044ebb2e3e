"""The serving benchmark against a gateway with a fake engine, and a service that does not start."""

from __future__ import annotations

import asyncio

import pytest
from papa_serving.client import AsyncClient
from papa_serving.contracts.identity import UserKey

from benchmarks.serving import freshness
from benchmarks.serving.service import service as started
from benchmarks.serving.whole import against_bare
from tests.demo.conftest import learner, service, unstarted
from tests.demo.learner import Learner
from tests.gateway.support.service import Service
from tests.generator.support import tiny_denoiser

__all__ = ["learner", "service", "unstarted"]


async def test_the_whole_path_and_the_bare_engine_take_turns(learner: Learner, service: Service) -> None:
    paired = await asyncio.to_thread(against_bare, service.gateway.address, tiny_denoiser(), 1)
    assert {name: len(seconds) for name, seconds in paired.seconds.items()} == {"bare engine": 1, "whole path": 1}


async def test_each_active_user_gives_a_figure_for_every_round_of_rating(
    learner: Learner, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(freshness, "ROUNDS", {1: 2, 3: 1})
    alone = await freshness.seconds_to_served(service.gateway.address, 1)
    together = await freshness.seconds_to_served(service.gateway.address, 3)
    assert (len(alone), len(together)) == (2, 3)
    assert min(alone + together) > 0
    rated = {user.user: number for user, number in learner.revisions.items()}
    assert set(rated) == {"warm", "active-1-0", "active-3-0", "active-3-1", "active-3-2"}
    assert rated["active-1-0"] >= 2


async def test_a_revision_that_is_announced_and_not_served_is_no_figure(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def announced(self: AsyncClient, user: str, **options: object) -> str:
        return "000002-aa"

    monkeypatch.setattr(AsyncClient, "wait_for_revision", announced)
    idle = Learner(service)
    idle.revisions[UserKey("default", "warm")] = 1
    with pytest.raises(RuntimeError, match="not served"):
        await freshness.seconds_to_served(service.gateway.address, 1)


def test_a_service_that_does_not_start_says_why() -> None:
    with pytest.raises(RuntimeError, match="no backbone"), started({"PAPA_BACKBONE": "/does/not/exist"}):
        pass
