"""The short form of `make fuzz`, and proof that it would notice."""

from __future__ import annotations

from random import Random

import pytest

from tests.fuzz import messages
from tests.fuzz.driver import Driver
from tests.fuzz.run import work
from tests.gateway.support.methods import EVERY_METHOD
from tests.gateway.support.service import Service


@pytest.mark.timeout(600)
def test_whatever_comes_gets_a_typed_answer() -> None:
    outcome = work("test", 6_000)
    assert outcome.tally.findings + outcome.faults == []
    assert set(outcome.tally.methods) == {method.short for method in EVERY_METHOD}
    answers = {answer.rpartition(" ")[2] for answer in outcome.tally.answers}
    assert answers >= {"OK", "INVALID_REQUEST", "REVISION_NOT_FOUND"}, "it got past the validation as well"


def test_a_seed_is_the_same_messages_again() -> None:
    for method in EVERY_METHOD:
        first, second = ([messages.message(method, Random(seed)) for seed in range(20)] for _ in range(2))
        assert first == second
        assert len(set(first)) > (10 if method.descriptor.input_type.fields else 4)


async def test_an_untyped_error_is_found(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object) -> None:
        raise KeyError("an error that nobody expected")

    monkeypatch.setattr(service.users, "reset", broken)
    tally = await Driver("test", service.gateway.address).run(6_000)
    assert any("ResetUser: ! INTERNAL" in finding for finding in tally.findings)
