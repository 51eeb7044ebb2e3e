"""`papa experiment report`: what people and programs read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from papa_serving.cli.output import console
from papa_serving.contracts.attribution import Count
from papa_serving.contracts.identity import UserKey
from papa_serving.settings import AttributionSettings

from tests.cli.conftest import Papa
from tests.gateway.support.service import Service

EXPERIMENTS = {
    "a-name-that-is-as-long-as-names-m": {
        "salt": "2026-11",
        "arms": {"holdout": {"share": 0.5, "holdout": True}, "own": {"share": 0.5}},
    }
}


@pytest.fixture
async def counted() -> AsyncIterator[Service]:
    """A gateway with an experiment, whose users have seen and done something."""
    (name,) = EXPERIMENTS
    service = Service(AttributionSettings.model_validate({"experiments": {name[:32]: EXPERIMENTS[name]}}))
    await service.start()
    for number in range(400):
        arm = ("holdout", "own")[number % 2]
        count = Count(shown=1_000, click=100 + 50 * (arm == "own") + number % 7, like=number % 3)
        await service.activity.count(UserKey("default", f"u{number}"), {f"{name[:32]}@2026-11/{arm}": count})
    yield service
    await service.stop()


async def test_a_report_fits_into_eighty_columns(counted: Service, papa: Papa, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "width", 80)
    ended = await asyncio.to_thread(papa, "experiment", "report", "--address", counted.gateway.address)
    assert ended.code == 0, ended.err
    assert max(map(len, ended.out.splitlines())) <= 80
    assert "15.3 [15.3, 15.3]" in ended.out
    assert "+5.0 [+5.0, +5.0]" in ended.out
    assert "baseline" in ended.out


async def test_programs_get_all_of_it(counted: Service, papa: Papa) -> None:
    ended = await asyncio.to_thread(papa, "experiment", "report", "--address", counted.gateway.address, "--json")
    (report,) = ended.json
    assert (report["baseline"], [arm["users"] for arm in report["arms"]]) == ("holdout", [200, 200])
    held, own = report["arms"]
    assert held["rates"][0]["difference"] is None
    assert own["rates"][0]["lift"]["low"] > 0.4


async def test_there_may_be_none(service: Service, papa: Papa) -> None:
    ended = await asyncio.to_thread(papa, "experiment", "report", "--address", service.gateway.address)
    assert ended.code == 0, ended.err
    assert "there are no experiments" in ended.out
