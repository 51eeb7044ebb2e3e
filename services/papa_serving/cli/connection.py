"""Connects commands to a gateway: address, TLS and credential."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from papa_serving.cli.configuration import load
from papa_serving.client import AsyncClient, Client, Retry, Tls
from papa_serving.local.failure import Failure
from papa_serving.local.ports import reachable
from papa_serving.settings import ClientSettings, Settings

Address = Annotated[
    str,
    typer.Option(
        "--address", metavar="HOST:PORT", help="The gateway; the configured one when absent.", show_default=False
    ),
]
Tenant = Annotated[
    str, typer.Option("--tenant", help="The user's tenant, where it is not the default one.", show_default=False)
]
UserId = Annotated[str, typer.Argument(metavar="USER", help="Your own id of the user.", show_default=False)]


RETRY = Retry(attempts=5)
"""Gives up after about a second, because a person waits for the command."""


def connect(address: str, tenant: str = "") -> Client:
    """A client of the gateway at `address`, or of the configured one, with the settings `client.*`."""
    return open_client(load(None), address, tenant)


def open_client(settings: Settings, address: str = "", tenant: str = "") -> Client:
    """Like `connect`, with loaded settings. Raises Failure for a file that cannot be read."""
    mine = settings.client
    return Client(address or _configured(settings), tenant=tenant, tls=_tls(mine), token=_token(mine), retry=RETRY)


def open_aio_client(settings: Settings, address: str = "", tenant: str = "") -> AsyncClient:
    """Like `open_client`, for the running event loop."""
    mine = settings.client
    return AsyncClient(address or _configured(settings), tenant=tenant, tls=_tls(mine), token=_token(mine), retry=RETRY)


def _configured(settings: Settings) -> str:
    return reachable(settings.gateway.host, settings.gateway.port)


def _tls(settings: ClientSettings) -> Tls | None:
    if not settings.tls and settings.ca is None:
        return None
    ca, key, chain = (
        None if path is None else _read(path) for path in (settings.ca, settings.key, settings.certificate)
    )
    return Tls(ca, key, chain)


def _token(settings: ClientSettings) -> str | Callable[[], str] | None:
    if (path := settings.token_file) is not None:
        return lambda: _read(path).decode().strip()
    return settings.token.get_secret_value() if settings.token else None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Failure(f"{path} cannot be read: {error.strerror}", "see the settings client.*") from error
