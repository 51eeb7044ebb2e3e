"""The example recommender backend, over real HTTP in front of a real gateway."""

from __future__ import annotations

import asyncio
import importlib.util
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import uvicorn
from papa_serving.contracts.errors import QueueFull
from papa_serving.contracts.identity import UserKey

from tests.gateway.support.doubles import revision
from tests.gateway.support.fixtures import service, unstarted
from tests.gateway.support.service import Service, eventually

__all__ = ["service", "unstarted"]

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "recommender" / "app.py"


@pytest.fixture
async def shop(service: Service, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the example backend, as a shop's front-end would use it."""
    monkeypatch.setenv("PAPA_ADDRESS", service.gateway.address)
    spec = importlib.util.spec_from_file_location("recommender", EXAMPLE)
    assert spec is not None and spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, example)
    spec.loader.exec_module(example)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(example.app, log_level="warning"))
        serving = asyncio.create_task(server.serve([listening]))
        await eventually(lambda: server.started)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{listening.getsockname()[1]}") as client:
            yield client
        server.should_exit = True
        await serving


async def test_a_shopper_is_shown_items_and_says_what_they_are_worth(shop: httpx.AsyncClient, service: Service) -> None:
    shown = (await shop.get("/users/ada/recommendations", params={"count": 3})).json()
    assert [each["adapted"] for each in shown] == [True, True, True]
    (request,) = service.engine.requests
    assert (request.user, request.exploration) == ("ada", 0.1)
    picture = await shop.get(shown[1]["picture"])
    assert (picture.content, picture.headers["content-type"]) == (bytes([1]) * 16, "image/png")
    assert (await shop.get("/pictures/never-shown")).status_code == 404

    labels = [{"click": f"c{n}", "item": each["item"], "label": "like"} for n, each in enumerate(shown[:2])]
    service.log.missing.add(shown[2]["item"])
    labels.append({"click": "c2", "item": shown[2]["item"], "label": "dislike"})
    for _ in range(2):  # a click that is sent again counts once
        answer = await shop.post("/users/ada/labels", json=labels)
        assert (answer.status_code, answer.json()) == (202, {"refused": [shown[2]["item"]]})
    for click, label in (("c3", "dislike"), ("c4", "like")):  # a mind changed twice is three labels
        again = [{"click": click, "item": shown[0]["item"], "label": label}]
        assert (await shop.post("/users/ada/labels", json=again)).json() == {"refused": []}
    taste = (await shop.get("/users/ada/taste")).json()
    assert taste == {"likes": 3, "dislikes": 1, "revision": "", "learning": True}
    service.users.commit(UserKey("default", "ada"), revision(1))
    assert (await shop.get("/users/ada/taste")).json()["revision"] == revision(1).name
    assert (await shop.delete("/users/ada")).json()["receipt"]


async def test_what_the_service_refuses_reaches_the_shop_in_http(shop: httpx.AsyncClient, service: Service) -> None:
    service.log.failure = QueueFull("too much", retry_after=100.0)
    refused = await shop.post("/users/ada/labels", json=[{"click": "c", "item": "known", "label": "like"}])
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "100")
    assert refused.json() == {"reason": "QUEUE_FULL", "message": "too much"}
    assert (await shop.get("/users/ada/recommendations", params={"count": 65})).status_code == 422
    assert (
        await shop.post("/users/ada/labels", json=[{"click": "c", "item": "known", "label": "love"}])
    ).status_code == 422
