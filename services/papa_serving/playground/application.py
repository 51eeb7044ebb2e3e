"""The web application: one page, its files, and the endpoints behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.staticfiles import StaticFiles

from papa_serving.client import AsyncClient, PapaError
from papa_serving.playground.endpoints import Endpoints, Judge
from papa_serving.playground.protection import Protection, refusal

STATIC = Path(__file__).parent / "static"
_HTTP = {3: 400, 4: 504, 5: 404, 7: 403, 8: 429, 9: 409, 10: 409, 14: 503, 15: 502, 16: 401}
"""HTTP status of each gRPC status (google.rpc.Code); 500 for the others."""


def application(
    connect: Callable[[], AsyncClient],
    judge: Judge | None = None,
    hosts: Collection[str] = (),
    per_page: int = 10,
    prompts: bool = False,
) -> Starlette:
    """The playground of one gateway, which it calls through the client that `connect` opens on the server's event loop.

    `prompts`: whether the page has a field for a prompt.
    """
    opened: list[Endpoints] = []

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with connect() as client:
            opened.append(Endpoints(client, judge, prompts))
            yield

    # The grid has all its cells from the beginning, so that nothing moves when the pictures come.
    text = (STATIC / "index.html").read_text().replace('data-per-page="10"', f'data-per-page="{per_page}"')

    async def page(_request: Request) -> Response:
        return HTMLResponse(text)

    def route(path: str, name: str, method: str) -> Route:
        async def endpoint(request: Request) -> Response:
            response: Response = await getattr(opened[-1], name)(request)
            return response

        return Route(f"/api/{path}", endpoint, methods=[method], name=name)

    posts = [route(name, name, "POST") for name in ("generate", "feedback", "rollback", "reset", "delete", "judge")]
    gets = [route(name, name, "GET") for name in ("about", "user", "watch", "revisions")]
    app = Starlette(
        routes=[Route("/", page), *gets, *posts],
        middleware=[Middleware(Protection, hosts=hosts)],
        exception_handlers={PapaError: _refused, HTTPException: _unknown, Exception: _failed},
        lifespan=lifespan,
    )
    app.mount("/static", StaticFiles(directory=STATIC))
    return app


async def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, PapaError)
    return refusal(_HTTP.get(int(error.status), 500), error.reason, error.message, error.retry_after)


async def _unknown(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return refusal(error.status_code, "NO_SUCH_ENDPOINT", error.detail)


async def _failed(_request: Request, _error: Exception) -> Response:
    """The answer to an internal error; the traceback is in the log."""
    return refusal(500, "INTERNAL", "the playground failed; its log says why")
