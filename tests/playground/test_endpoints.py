"""The answers of the page's server in front of a real gateway."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Collection, Sequence

import httpx
import pytest
from papa_serving.client import AsyncClient, Item
from papa_serving.playground.application import application
from papa_serving.playground.endpoints import Judge
from papa_serving.playground.gallery import Gallery
from papa_serving.playground.protection import HEADER, MAX_BODY

from tests.gateway.support.fixtures import service, unstarted
from tests.gateway.support.service import Service

__all__ = ["service", "unstarted"]

SAME_ORIGIN = {HEADER: "1"}


def even_seeds(items: Sequence[Item], taste: Collection[int]) -> list[bool]:
    return [item.seed % 2 in taste for item in items]


@pytest.fixture
async def page(service: Service) -> AsyncIterator[httpx.AsyncClient]:
    app = application(lambda: AsyncClient(service.gateway.address), Judge(("even", "odd"), even_seeds), per_page=6)
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8484", headers=SAME_ORIGIN) as client,
    ):
        yield client


async def grid(page: httpx.AsyncClient, **asked: object) -> dict:
    made = await page.post("/api/generate", json={"user": "ada", "count": 4, "seed": "10", **asked})
    assert made.status_code == 200, made.text
    return made.json()


def ratings(items: list[dict], grade: float = 1.0) -> list[dict]:
    return [{"event_id": f"e-{item['id']}", "item_id": item["id"], "grade": grade} for item in items]


async def test_the_page_and_its_files_are_served_and_may_load_nothing_else(page: httpx.AsyncClient) -> None:
    start = await page.get("/")
    assert "PAPA playground" in start.text
    assert start.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
    for name in ("main.js", "grid.js", "style.css", "icon.svg"):
        assert (await page.get(f"/static/{name}")).status_code == 200
    assert (await page.get("/static/../application.py")).status_code == 404


async def test_about_says_how_to_set_the_page_up(page: httpx.AsyncClient, service: Service) -> None:
    await service.until_serving("papa.serving.v1.GenerationService")
    assert (await page.get("/api/about")).json() == {
        "labels": ["even", "odd"], "prompts": False, "vocabulary": [], "serving": True,
    }  # fmt: skip
    assert 'data-per-page="6"' in (await page.get("/")).text


async def test_a_grid_is_rated_and_the_state_follows(page: httpx.AsyncClient) -> None:
    made = await grid(page)
    assert [item["seed"] for item in made["items"]] == ["10", "11", "12", "13"]
    assert all(item["image"].startswith("data:image/png;base64,") for item in made["items"])
    done = await page.post("/api/feedback", json={"user": "ada", "ratings": ratings(made["items"])})
    assert [outcome["reason"] for outcome in done.json()["outcomes"]] == [""] * 4
    state = (await page.get("/api/user", params={"user": "ada"})).json()
    assert (state["likes"], state["pending_events"], state["current_revision"]) == (4, 4, None)


async def test_a_bad_rating_says_which_one_and_nothing_counts(page: httpx.AsyncClient) -> None:
    sent = ratings((await grid(page))["items"])
    sent[1]["grade"] = 5
    refused = await page.post("/api/feedback", json={"user": "ada", "ratings": sent})
    assert (refused.status_code, refused.json()["error"]["reason"]) == (400, "INVALID_REQUEST")
    assert "events[1].grade" in refused.json()["error"]["message"]
    assert (await page.get("/api/user", params={"user": "ada"})).json()["likes"] == 0


async def test_changes_are_pushed(page: httpx.AsyncClient, service: Service) -> None:
    """Read at the application itself: httpx' transport waits for the end of a body, and this one has none."""
    items = (await grid(page))["items"]
    app = page._transport.app  # type: ignore[attr-defined]
    seen: asyncio.Queue[dict] = asyncio.Queue()

    async def send(message: dict) -> None:
        if text := message.get("body", b"").decode():
            await seen.put(json.loads(text.removeprefix("data: ")))

    async def receive() -> dict:
        return await asyncio.Event().wait() or {}

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "path": "/api/watch",
        "raw_path": b"/api/watch", "query_string": b"user=ada", "root_path": "", "scheme": "http",
        "headers": [(b"host", b"localhost:8484")], "server": ("localhost", 8484), "client": ("127.0.0.1", 1),
    }  # fmt: skip
    watching = asyncio.create_task(app(scope, receive, send))
    assert (await seen.get())["likes"] == 0
    await page.post("/api/feedback", json={"user": "ada", "ratings": ratings(items)})
    while (await seen.get())["likes"] != 4:
        continue
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


async def test_a_shopper_judges_what_was_shown(page: httpx.AsyncClient) -> None:
    ids = [item["id"] for item in (await grid(page))["items"]]
    judged = await page.post("/api/judge", json={"item_ids": ids, "taste": [0]})
    assert judged.json() == {"likes": [True, False, True, False]}
    for asked in ({"item_ids": ["other"], "taste": [0]}, {"item_ids": ids, "taste": [2]}, {"item_ids": ids}):
        assert (await page.post("/api/judge", json=asked)).status_code == 400


@pytest.mark.parametrize(
    ("path", "asked", "status", "reason"),
    [
        ("generate", {"user": "ada", "count": 0}, 400, "INVALID_REQUEST"),
        ("generate", {"user": "ada", "count": True}, 400, "INVALID_REQUEST"),
        ("generate", {"count": 4}, 400, "INVALID_REQUEST"),
        ("generate", {"user": "ada", "count": 4, "seed": "-1"}, 400, "INVALID_REQUEST"),
        ("generate", {"user": "ada", "count": 4, "seed": 7}, 400, "INVALID_REQUEST"),
        ("feedback", {"user": "ada", "ratings": []}, 400, "INVALID_REQUEST"),
        ("feedback", {"user": "ada", "ratings": [{"item_id": "x", "event_id": "e"}]}, 400, "INVALID_REQUEST"),
        ("rollback", {"user": "ada", "revision": "000009-0123abcd"}, 404, "REVISION_NOT_FOUND"),
        ("reset", [], 400, "INVALID_REQUEST"),
    ],
)
async def test_what_is_wrong_comes_back_typed(
    page: httpx.AsyncClient, path: str, asked: object, status: int, reason: str
) -> None:
    refused = await page.post(f"/api/{path}", json=asked)
    assert (refused.status_code, refused.json()["error"]["reason"]) == (status, reason)
    assert refused.json()["error"]["message"]


ODD_BODIES = [
    "",
    "null",
    "[" * 100_000,
    '{"user": ' * 20_000,
    "\ufeff{}",
    "1" * 5_000,
    '"text"',
    "NaN",
    '{"user": "\\ud800", "count": 1, "revision": "\\ud800", "taste": [0], "item_ids": ["x"]}',
    '{"user": "ada", "count": 1, "seed": "' + "9" * 5_000 + '"}',
    '{"user": "ada", "count": 1e400}',
    '{"user": "ada", "count": 1, "prompt": {}, "revision": ["x"]}',
    '{"user": "ada", "ratings": [{"event_id": "e", "item_id": "x", "grade": 1' + "0" * 400 + "}]}",
    '{"user": "ada", "ratings": [{"event_id": "e", "item_id": "x", "grade": 1e999}]}',
    '{"user": "ada", "ratings": [{"event_id": "e", "item_id": "x", "grade": NaN}]}',
    '{"user": "ada", "ratings": [{"event_id": "\\udfff", "item_id": "x", "grade": 1}]}',
    '{"user": "ada", "ratings": {"0": 1}}',
    '{"user": "ada", "taste": [true], "item_ids": [{}]}',
    '{"user": "ada", "taste": [[]], "item_ids": [null]}',
    '{"user": "ada\\u0000", "revision": "\\u0000", "count": 1}',
]


@pytest.mark.parametrize("body", ODD_BODIES, ids=[body[:24] for body in ODD_BODIES])
@pytest.mark.parametrize("path", ["generate", "feedback", "rollback", "reset", "delete", "judge"])
async def test_an_odd_body_is_refused_in_words(page: httpx.AsyncClient, path: str, body: str) -> None:
    answer = await page.post(f"/api/{path}", content=body.encode())
    assert answer.status_code < 500, answer.text
    if answer.status_code != 200:
        assert set(answer.json()["error"]) == {"reason", "message", "retry_after"}


@pytest.mark.parametrize("query", ["", "user=", "user=%ed%a0%80", "user=%00", "user=" + "x" * 5_000, "user=a&user=b"])
@pytest.mark.parametrize("path", ["user", "revisions"])
async def test_an_odd_query_is_refused_in_words(page: httpx.AsyncClient, path: str, query: str) -> None:
    assert (await page.get(f"/api/{path}?{query}")).status_code < 500


async def test_what_does_not_exist_is_refused_in_the_shape_of_every_refusal(page: httpx.AsyncClient) -> None:
    for method, path, status in (("GET", "/api/nothing", 404), ("PUT", "/api/reset", 405)):
        answer = await page.request(method, path, content=b"{}")
        assert (answer.status_code, answer.json()["error"]["reason"]) == (status, "NO_SUCH_ENDPOINT")


@pytest.mark.parametrize(
    ("site", "status"), [("same-origin", 200), ("none", 200), ("same-site", 403), ("cross-site", 403)]
)
async def test_pages_of_other_sites_cannot_have_users_watched(page: httpx.AsyncClient, site: str, status: int) -> None:
    for path in ("/api/about", "/api/user?user=ada"):
        assert (await page.get(path, headers={"sec-fetch-site": site})).status_code == status
    assert (await page.get("/", headers={"sec-fetch-site": site})).status_code == 200, "a link may lead here"


async def test_other_origins_names_and_floods_are_kept_out(page: httpx.AsyncClient) -> None:
    del page.headers[HEADER]
    assert (await page.post("/api/reset", json={"user": "ada"})).json()["error"]["reason"] == "FOREIGN_ORIGIN"
    page.headers[HEADER] = "1"
    foreign = await page.get("/api/about", headers={"host": "papa.example"})
    assert (foreign.status_code, foreign.json()["error"]["reason"]) == (403, "FOREIGN_HOST")
    large = await page.post("/api/reset", content=b" " * (MAX_BODY + 1))
    assert large.status_code == 413


async def test_a_proxy_that_calls_by_another_host_is_known_by_its_name(service: Service) -> None:
    app = application(lambda: AsyncClient(service.gateway.address), hosts=("demo.papa.example",))
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8484", headers=SAME_ORIGIN) as page,
    ):
        for origin, status in (("https://demo.papa.example", 200), ("https://other.papa.example", 403)):
            answer = await page.post("/api/reset", json={"user": "ada"}, headers={"origin": origin})
            assert answer.status_code == status


async def test_without_a_judge_the_shopper_says_why(service: Service) -> None:
    app = application(lambda: AsyncClient(service.gateway.address), hosts=("papa.example",))
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://papa.example", headers=SAME_ORIGIN) as page,
    ):
        assert (await page.get("/api/about")).json()["labels"] == []
        refused = await page.post("/api/judge", json={"item_ids": ["x"], "taste": [0]})
        assert "no simulated shopper" in refused.json()["error"]["message"]


def test_the_gallery_forgets_the_oldest() -> None:
    from papa_serving.client import ServedBy

    gallery = Gallery(limit=2)
    items = [Item(str(n), b"", "image/png", n, 0, ServedBy.BASE) for n in range(3)]
    gallery.add(items)
    assert gallery.find(["2", "1"]) == [items[2], items[1]]
    with pytest.raises(KeyError):
        gallery.find(["0"])


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://127.0.0.1:9"}, 403),
        ({"origin": "http://127.0.0.1:8484"}, 200),
        ({"host": "LocalHost:9", "origin": "http://localhost:9"}, 200),
        ({"host": "evil.example", "origin": "http://evil.example"}, 403),
    ],
)
async def test_a_page_of_another_origin_changes_nothing(
    page: httpx.AsyncClient, headers: dict[str, str], status: int
) -> None:
    assert (await page.post("/api/reset", json={"user": "ada"}, headers=headers)).status_code == status
