"""The serving benchmark against a gateway with a fake engine, and a service that does not start."""

from __future__ import annotations

import asyncio

import pytest

from benchmarks.serving.service import service as started
from benchmarks.serving.whole import against_bare
from tests.demo.conftest import learner, service, unstarted
from tests.demo.learner import Learner
from tests.gateway.service import Service
from tests.generator.tiny import tiny_denoiser

__all__ = ["learner", "service", "unstarted"]


async def test_the_whole_path_and_the_bare_engine_take_turns(learner: Learner, service: Service) -> None:
    paired = await asyncio.to_thread(against_bare, service.gateway.address, tiny_denoiser(), 1)
    assert {name: len(seconds) for name, seconds in paired.seconds.items()} == {"bare engine": 1, "whole path": 1}


def test_a_service_that_does_not_start_says_why() -> None:
    with pytest.raises(RuntimeError, match="no backbone"), started({"PAPA_BACKBONE": "/does/not/exist"}):
        pass
