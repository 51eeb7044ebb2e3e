"""The endpoints of the page: each is one call of the public client, as JSON."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from papa_serving.client import (
    AsyncClient,
    FeedbackEvent,
    InvalidRequest,
    Item,
    PapaError,
    Revision,
    UserState,
    Violation,
)
from papa_serving.client.records import GenerateOptions
from papa_serving.playground.gallery import Gallery

MAX_REVISIONS = 50
MAX_PAGE = 64


@dataclass(frozen=True)
class Judge:
    """A simulated shopper: `labels` are the classes that it tells apart, `likes` says which items fit a taste.

    `likes` computes for a while: call it in a thread.
    """

    labels: tuple[str, ...]
    likes: Callable[[Sequence[Item], Collection[int]], list[bool]]


class Endpoints:
    """Handlers over one client. Every PapaError goes up to the application's one handler."""

    def __init__(self, client: AsyncClient, judge: Judge | None, prompts: bool) -> None:
        self._client, self._judge, self._prompts = client, judge, prompts
        self._gallery = Gallery()

    async def about(self, request: Request) -> Response:
        """The configuration of the page, and whether the service answers."""
        labels = list(self._judge.labels) if self._judge else []
        serving = await self._client.is_serving()
        words = (await self._client.server_info()).vocabulary if serving and self._prompts else ()
        return JSONResponse({
            "labels": labels, "prompts": self._prompts, "vocabulary": words, "serving": serving,
        })  # fmt: skip

    async def generate(self, request: Request) -> Response:
        """A grid: {user, count, seed?, revision?, prompt?}. Seeds are strings: a browser's numbers end at 2^53."""
        asked = await _body(request)
        options = GenerateOptions()
        if asked.get("seed") is not None:
            options["seed"] = _seed(asked)
        if asked.get("revision"):
            options["revision"] = _text(asked, "revision")
        if asked.get("prompt"):
            options["prompt"] = _text(asked, "prompt")
        made = await self._client.generate(_text(asked, "user"), _whole(asked, "count", 1, MAX_PAGE), **options)
        self._gallery.add(made.items)
        return JSONResponse({
            "generation": made.generation_id, "revision": made.revision, "served_by": made.served_by.value,
            "seconds": made.timings.total, "acceptance": made.acceptance, "drawn": made.drawn,
            "items": [_item(item) for item in made.items],
            "prompt_reading": asdict(made.prompt_reading) if made.prompt_reading else None,
        })  # fmt: skip

    async def feedback(self, request: Request) -> Response:
        """Ratings: {user, ratings: [{event_id, item_id, grade}]}; one outcome each."""
        asked = await _body(request)
        user, ratings = _text(asked, "user"), asked.get("ratings")
        if not isinstance(ratings, list) or not 1 <= len(ratings) <= MAX_PAGE:
            raise _wrong("ratings", f"give 1 to {MAX_PAGE} of them")
        outcomes = await self._client.submit_feedback([_event(user, each) for each in ratings])
        return JSONResponse({"outcomes": [_outcome(each.event_id, each.error) for each in outcomes]})

    async def user(self, request: Request) -> Response:
        """The user's state now."""
        return JSONResponse(_state(await self._client.get_user(_user(request))))

    async def watch(self, request: Request) -> Response:
        """The user's state now and after each change, as server-sent events."""
        return StreamingResponse(self._changes(_user(request)), media_type="text/event-stream")

    async def revisions(self, request: Request) -> Response:
        """The newest revisions, newest first."""
        found: list[dict[str, Any]] = []
        async for revision in self._client.list_revisions(_user(request), page_size=MAX_REVISIONS):
            found.append(_revision(revision))
            if len(found) == MAX_REVISIONS:
                break
        return JSONResponse({"revisions": found})

    async def rollback(self, request: Request) -> Response:
        """Serves an earlier revision: {user, revision}."""
        asked = await _body(request)
        return JSONResponse(_state(await self._client.rollback(_text(asked, "user"), _text(asked, "revision"))))

    async def reset(self, request: Request) -> Response:
        """Serves the backbone: {user}."""
        return JSONResponse(_state(await self._client.reset(_text(await _body(request), "user"))))

    async def delete(self, request: Request) -> Response:
        """Deletes the user for good and answers with the receipt: {user}."""
        receipt = await self._client.delete_user(_text(await _body(request), "user"))
        return JSONResponse({**asdict(receipt), "deleted_at": receipt.deleted_at.isoformat()})

    async def judge(self, request: Request) -> Response:
        """The labels of a simulated shopper with this taste for items on the page: {item_ids, taste}."""
        asked = await _body(request)
        if self._judge is None:
            raise _wrong("taste", "no simulated shopper knows this backbone's pictures")
        taste, item_ids = asked.get("taste"), asked.get("item_ids")
        known = range(len(self._judge.labels))
        if not isinstance(taste, list) or not taste or not all(_is_class(each, known) for each in taste):
            raise _wrong("taste", f"name classes from 0 to {len(known) - 1}")
        if not isinstance(item_ids, list) or not 1 <= len(item_ids) <= MAX_PAGE:
            raise _wrong("item_ids", f"give 1 to {MAX_PAGE} of them")
        try:
            items = self._gallery.find([str(each) for each in item_ids])
        except KeyError as error:
            raise _wrong("item_ids", "an item was shown too long ago") from error
        return JSONResponse({"likes": await asyncio.to_thread(self._judge.likes, items, taste)})

    async def _changes(self, user: str) -> AsyncIterator[str]:
        async with aclosing(self._client.watch_user(user)) as states:
            try:
                async for state in states:
                    yield f"data: {json.dumps(_state(state))}\n\n"
            except PapaError as error:
                yield f"event: refused\ndata: {json.dumps({'reason': error.reason, 'message': error.message})}\n\n"


def _item(item: Item) -> dict[str, Any]:
    image = f"data:{item.content_type};base64,{base64.b64encode(item.image).decode()}"
    return {
        "id": item.item_id, "image": image, "seed": str(item.seed), "served_by": item.served_by.value,
        "like_probability": item.like_probability, "exploring": item.exploring,
    }  # fmt: skip


def _state(state: UserState) -> dict[str, Any]:
    current = state.current_revision
    return {**asdict(state), "current_revision": _revision(current) if current else None}


def _revision(revision: Revision) -> dict[str, Any]:
    return {**asdict(revision), "created_at": revision.created_at.isoformat()}


def _outcome(event_id: str, error: PapaError | None) -> dict[str, Any]:
    return {"event_id": event_id, "reason": error.reason if error else "", "message": error.message if error else ""}


def _event(user: str, rating: Any) -> FeedbackEvent:
    if not isinstance(rating, dict):
        raise _wrong("ratings", "each is an object")
    return FeedbackEvent(
        user, _number(rating, "grade"), item_id=_text(rating, "item_id"), event_id=_text(rating, "event_id")
    )


async def _body(request: Request) -> dict[str, Any]:
    try:
        document = await request.json()
    except (ValueError, RecursionError) as error:
        raise _wrong("body", "send one JSON object") from error
    if not isinstance(document, dict):
        raise _wrong("body", "send one JSON object")
    return document


def _user(request: Request) -> str:
    return _text(dict(request.query_params), "user")


def _text(asked: dict[str, Any], field: str) -> str:
    value = asked.get(field)
    if not isinstance(value, str) or not value:
        raise _wrong(field, "a text that is not empty")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise _wrong(field, "Unicode text without lone surrogates") from error
    return value


def _number(asked: dict[str, Any], field: str) -> float:
    value = asked.get(field)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong(field, "a number from -1 to 1, not 0")
    try:
        return float(value)
    except OverflowError as error:
        raise _wrong(field, "a number from -1 to 1, not 0") from error


def _whole(asked: dict[str, Any], field: str, low: int, high: int) -> int:
    value = asked.get(field)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise _wrong(field, f"a whole number from {low} to {high}")
    return value


def _seed(asked: dict[str, Any]) -> int:
    value = asked["seed"]
    digits = isinstance(value, str) and value.isascii() and value.isdigit()
    if not digits or len(value) > len(str(2**63)) or int(value) >= 2**63:
        raise _wrong("seed", "a whole number below 2^63, as a text")
    return int(value)


def _is_class(value: Any, known: range) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value in known


def _wrong(field: str, description: str) -> InvalidRequest:
    return InvalidRequest([Violation(field, description)])
