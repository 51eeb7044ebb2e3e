"""Protects a playground from other web pages in the same browser.

A page of another origin can send requests to a server on this machine, and a name that resolves to loopback makes it
same-origin (DNS rebinding). So the Host must be a known one. A request that changes something must have a header that
another origin cannot send without a preflight, and its Origin, if present, must be the playground's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from urllib.parse import urlsplit

from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

HEADER = "x-papa-playground"
MAX_BODY = 64 * 1024
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_OWN_SITES = ("same-origin", "none")
"""The values of Sec-Fetch-Site that browsers send for the page itself and for an address that a person typed."""
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


class Protection(BaseHTTPMiddleware):
    """Refuses foreign requests and large bodies, and sets the headers that restrict what the page may load."""

    def __init__(self, app: ASGIApp, hosts: Collection[str] = ()) -> None:
        super().__init__(app)
        self._named = {each.lower() for each in hosts}
        self._hosts = {*_LOOPBACK, *self._named}

    async def dispatch(self, request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        """Answers 403 or 413 itself, else adds headers to the application's answer."""
        if (refused := self._refusal(request)) is not None:
            return refused
        response = await call_next(request)
        response.headers["content-security-policy"] = POLICY
        response.headers["x-content-type-options"] = "nosniff"
        response.headers["referrer-policy"] = "no-referrer"
        response.headers.setdefault("cache-control", "no-cache")
        return response

    def _refusal(self, request: Request) -> Response | None:
        host = request.headers.get("host", "").lower()
        if host.rpartition(":")[0] not in self._hosts and host not in self._hosts:
            return refusal(403, "FOREIGN_HOST", "the playground is not known by this name; set playground.hosts")
        if request.method in ("GET", "HEAD"):
            return _refusal_of_reading(request)
        if HEADER not in request.headers:
            return refusal(403, "FOREIGN_ORIGIN", f"the header {HEADER} is missing")
        if not self._is_own(request.headers.get("origin"), host):
            return refusal(403, "FOREIGN_ORIGIN", "only the playground's own page may change anything")
        length = request.headers.get("content-length", "")
        if not length.isdigit() or int(length) > MAX_BODY:
            return refusal(413, "TOO_LARGE", f"a request may have {MAX_BODY} bytes")
        return None

    def _is_own(self, origin: str | None, host: str) -> bool:
        """Whether the host is known. `playground.hosts` names those by which a proxy calls this server."""
        if origin is None:
            return True
        named = urlsplit(origin).netloc.lower()
        return named == host or named in self._named or named.rpartition(":")[0] in self._named


def _refusal_of_reading(request: Request) -> Response | None:
    """A page of another origin cannot read an answer, but could have the gateway watch users without end."""
    if request.url.path.startswith("/api/") and request.headers.get("sec-fetch-site", "same-origin") not in _OWN_SITES:
        return refusal(403, "FOREIGN_ORIGIN", "only the playground's own page may ask this")
    return None


def refusal(status: int, reason: str, message: str, retry_after: float | None = None) -> JSONResponse:
    """The common form of all errors that the page gets."""
    body = {"reason": reason, "message": message, "retry_after": retry_after}
    return JSONResponse({"error": body}, status_code=status)
