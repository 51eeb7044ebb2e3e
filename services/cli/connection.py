"""How the calling commands find the gateway."""

from __future__ import annotations

from typing import Annotated

import typer

from services.cli.configuration import load
from services.client import Client

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


def connect(address: str, tenant: str = "") -> Client:
    """A client of the gateway at `address`, or of the one that the settings describe."""
    if not address:
        gateway = load(None).gateway
        host = "127.0.0.1" if gateway.host in ("0.0.0.0", "::", "") else gateway.host  # noqa: S104 - a listening address
        address = f"{host}:{gateway.port}"
    return Client(address, tenant=tenant)
