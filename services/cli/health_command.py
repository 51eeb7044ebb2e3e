"""`papa health` and `papa smoke`: whether a running service works, for people and for probes."""

from __future__ import annotations

import contextlib
import secrets
from typing import Annotated

import typer

from services.cli.connection import Address, connect
from services.cli.output import console
from services.client import Client, FeedbackEvent
from services.contracts.errors import PapaError
from services.local.failure import Failure

SERVICES = ("GenerationService", "FeedbackService", "UserService")
Service = Annotated[
    str, typer.Option("--service", help="One of the gateway's services; all of them when absent.", show_default=False)
]
Timeout = Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds to wait for each answer.")]


def health(address: Address = "", service: Service = "", timeout: Timeout = 5.0) -> None:
    """Ask a gateway's health check; the exit code is 0 when everything asked for serves."""
    with connect(address) as client:
        _check_health(client, (service,) if service else SERVICES, timeout)


def smoke(address: Address = "", timeout: Timeout = 120.0) -> None:
    """Health, one generation and one like against a running service, by a user who is deleted again."""
    with connect(address) as client:
        _check_health(client, SERVICES, timeout)
        user = f"smoke-{secrets.token_hex(8)}"
        try:
            _generate_and_like(client, user, timeout)
        except PapaError:
            with contextlib.suppress(PapaError):
                client.delete_user(user)
            raise
        client.delete_user(user)
    console.print("the service works")


def _generate_and_like(client: Client, user: str, timeout: float) -> None:
    item = client.generate(user, 1, timeout=timeout).items[0]
    console.print(f"generated {item.content_type}, {len(item.image)} bytes")
    like = FeedbackEvent(user, 1.0, item_id=item.item_id)
    outcome = client.submit_feedback([like], timeout=timeout)[0]
    console.print(f"accepted a like as number {outcome.sequence}")


def _check_health(client: Client, services: tuple[str, ...], timeout: float) -> None:
    down = [each for each in services if not client.is_serving(f"papa.serving.v1.{each}", timeout=timeout)]
    if down:
        raise Failure(f"not serving: {', '.join(down)}", "papa doctor checks what it needs; its log says more")
    console.print(f"serving: {', '.join(services)}")
