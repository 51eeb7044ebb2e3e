"""`papa deadletters` against a gateway."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from papa_serving.contracts.identity import UserKey

from tests.cli.conftest import Ended
from tests.gateway.support.service import Service, bury

Call = Callable[..., Awaitable[Ended]]
ALICE, BOB = UserKey("default", "alice"), UserKey("shop", "bob")


@pytest.fixture
async def letters(service: Service) -> dict[str, str]:
    """Letter ids by event id."""
    buried = [*await bury(service, ALICE, "a1", "a2"), *await bury(service, BOB, "b1")]
    return {letter.event.event_id: letter.letter_id for letter in buried}


async def test_list(papa_call: Call, letters: dict[str, str]) -> None:
    ended = await papa_call("deadletters", "list", "--json")
    assert ended.code == 0, ended.err
    assert {each["event_id"]: each["letter_id"] for each in ended.json} == letters
    assert {each["reason"] for each in ended.json} == {"poison"}
    table = (await papa_call("deadletters", "list", "--user", "alice")).out
    assert letters["a1"] in table
    assert letters["b1"] not in table
    of_tenant = (await papa_call("deadletters", "list", "--tenant", "shop", "--json")).json
    assert [each["event_id"] for each in of_tenant] == ["b1"]


async def test_retry_one_then_all(papa_call: Call, service: Service, letters: dict[str, str]) -> None:
    ended = await papa_call("deadletters", "retry", letters["a2"], "--json")
    assert ended.code == 0, ended.err
    assert [each["event_id"] for each in ended.json["retried"]] == ["a2"]
    assert (await service.users.get(ALICE)).pending == 1
    assert "retried 2 of 2" in (await papa_call("deadletters", "retry", "--all")).out
    assert (await service.users.get(ALICE)).pending == 2
    assert (await service.users.get(BOB)).pending == 1


async def test_drop_asks_first(papa_call: Call, service: Service, letters: dict[str, str]) -> None:
    assert (await papa_call("deadletters", "drop", letters["a1"])).code == 1
    assert (await service.users.get(ALICE)).dead_letters == 2
    assert (await papa_call("deadletters", "drop", letters["a1"], "--yes")).code == 0
    assert (await service.users.get(ALICE)).dead_letters == 1
    assert "dropped 1 of 1" in (await papa_call("deadletters", "drop", "--all", "--user", "alice", "-y")).out
    assert (await service.users.get(BOB)).dead_letters == 1


@pytest.mark.parametrize("arguments", [(), ("7-7",), ("7-7", "--all")])
async def test_a_choice_that_is_none_changes_nothing(
    papa_call: Call, service: Service, letters: dict[str, str], arguments: tuple[str, ...]
) -> None:
    ended = await papa_call("deadletters", "retry", *arguments)
    assert ended.code == 1
    assert "papa deadletters list" in ended.err
    assert (await service.users.get(ALICE)).dead_letters == 2
