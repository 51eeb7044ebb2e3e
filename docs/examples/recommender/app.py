"""A recommender backend in front of the service: what a shop's own API may look like.

    pip install ./packaging/client fastapi uvicorn       # in a clone
    PAPA_ADDRESS=127.0.0.1:50051 uvicorn app:app --port 8000     # in this folder; then http://127.0.0.1:8000/docs

It keeps the pictures that it has shown for a while, so that a browser fetches them one by one. The browser names each
click, so that one that is sent twice counts once, and like, dislike, like of the same item counts three times.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Literal

from fastapi import FastAPI, HTTPException, Path, Query, Request
from fastapi.responses import JSONResponse, Response
from papa_serving.client import AsyncClient, FeedbackEvent, Item, PapaError, ServedBy
from pydantic import BaseModel, Field

KEPT_PICTURES = 10_000
HTTP_STATUS = {
    "INVALID_ARGUMENT": 422, "NOT_FOUND": 404, "FAILED_PRECONDITION": 409, "RESOURCE_EXHAUSTED": 429,
    "UNAVAILABLE": 503, "DEADLINE_EXCEEDED": 504,
}  # fmt: skip

User = Annotated[str, Path(min_length=1, max_length=128)]


class Recommendation(BaseModel):
    """One item to show; `adapted` is False where the backbone made it, as for a new user."""

    item: str
    picture: str
    adapted: bool


class ItemLabel(BaseModel):
    """A shopper's label of one item. `click` is the browser's own id of it, the same when it is sent again."""

    click: Annotated[str, Field(min_length=1, max_length=128)]
    item: str
    label: Literal["like", "dislike"]


class Taste(BaseModel):
    """How far learning is; `learning` while some labels are not part of the adapter yet."""

    likes: int
    dislikes: int
    revision: str
    learning: bool


pictures: OrderedDict[str, Item] = OrderedDict()


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """One client for the process: it shares a connection, reconnects, and retries what may be retried."""
    token = os.environ.get("PAPA_TOKEN")
    async with AsyncClient(os.environ.get("PAPA_ADDRESS", "127.0.0.1:50051"), token=token) as app.state.papa:
        yield


app = FastAPI(title="A shop with a taste for everybody", lifespan=lifespan)


@app.get("/users/{user}/recommendations")
async def recommend(
    request: Request, user: User, count: Annotated[int, Query(ge=1, le=64)] = 8
) -> list[Recommendation]:
    """Items made for this user; a tenth of them by the backbone, to keep discovering what else is liked."""
    generation = await _papa(request).generate(user, count, exploration=0.1, timeout=30.0)
    _keep(generation.items)
    return [
        Recommendation(
            item=each.item_id, picture=f"/pictures/{each.item_id}", adapted=each.served_by is ServedBy.ADAPTER
        )
        for each in generation.items
    ]


@app.get("/pictures/{item}")
async def picture(item: str) -> Response:
    """One picture. A shop with several processes would keep them in a cache that all reach."""
    if item not in pictures:
        raise HTTPException(404, "not shown lately")
    return Response(pictures[item].image, media_type=pictures[item].content_type)


@app.post("/users/{user}/labels", status_code=202)
async def rate(request: Request, user: User, labels: list[ItemLabel]) -> dict[str, list[str]]:
    """Taken once the service has them for good. Items that are not (any more) this user's are named."""
    events = [
        FeedbackEvent(user, 1.0 if each.label == "like" else -1.0, item_id=each.item, event_id=each.click)
        for each in labels
    ]
    outcomes = await _papa(request).submit_feedback(events)
    refused = [each.item for each, outcome in zip(labels, outcomes, strict=True) if not outcome.accepted]
    return {"refused": refused}


@app.get("/users/{user}/taste")
async def taste(request: Request, user: User) -> Taste:
    """How much has been learnt about this user."""
    state = await _papa(request).get_user(user)
    current = state.current_revision
    return Taste(
        likes=state.likes,
        dislikes=state.dislikes,
        revision=current.name if current else "",
        learning=state.pending_events > 0,
    )


@app.delete("/users/{user}")
async def forget(request: Request, user: User) -> dict[str, str]:
    """Everything about the user is gone; the receipt says so."""
    receipt = await _papa(request).delete_user(user)
    return {"receipt": receipt.receipt_id}


@app.exception_handler(PapaError)
async def refused(request: Request, error: PapaError) -> JSONResponse:
    """The service's typed errors, in HTTP's words."""
    headers = {"Retry-After": str(max(1, round(error.retry_after)))} if error.retry_after else None
    body = {"reason": error.reason, "message": error.message}
    return JSONResponse(body, HTTP_STATUS.get(error.status.name, 502), headers)


def _papa(request: Request) -> AsyncClient:
    client: AsyncClient = request.app.state.papa
    return client


def _keep(items: tuple[Item, ...]) -> None:
    pictures.update({each.item_id: each for each in items})
    while len(pictures) > KEPT_PICTURES:
        pictures.popitem(last=False)
