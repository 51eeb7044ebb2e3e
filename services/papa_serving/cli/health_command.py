"""`papa health` and `papa smoke`: check a running service, for people and for probes."""

from __future__ import annotations

import contextlib
import secrets
from typing import Annotated

import typer
from rich.console import Console

from papa_serving.cli.connection import Address, connect
from papa_serving.cli.output import AsJson, console, print_json, voice
from papa_serving.client import Client, FeedbackEvent
from papa_serving.contracts.errors import PapaError
from papa_serving.local.failure import Failure

SERVICES = ("GenerationService", "FeedbackService", "UserService")
Service = Annotated[
    str, typer.Option("--service", help="One of the gateway's services; all of them when absent.", show_default=False)
]
Timeout = Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds to wait for each answer.")]


def health(address: Address = "", service: Service = "", timeout: Timeout = 5.0, json: AsJson = False) -> None:
    """Ask a gateway's health check; the exit code is 0 when everything asked for serves."""
    with connect(address) as client:
        serving = _check_health(client, (service,) if service else SERVICES, timeout, json)
    if not json:
        console.print(f"serving: {', '.join(serving)}")


def smoke(address: Address = "", timeout: Timeout = 120.0, json: AsJson = False) -> None:
    """Health, one generation and one like against a running service, by a user who is deleted again."""
    with connect(address) as client:
        serving = _check_health(client, SERVICES, timeout, False)
        voice(json).print(f"serving: {', '.join(serving)}")
        user = f"smoke-{secrets.token_hex(8)}"
        try:
            done = _generate_and_like(client, user, timeout, voice(json))
        except PapaError:
            with contextlib.suppress(PapaError):
                client.delete_user(user)
            raise
        client.delete_user(user)
    if json:
        print_json({"serving": serving, **done})
    else:
        console.print("the service works")


def _generate_and_like(client: Client, user: str, timeout: float, console: Console) -> dict[str, object]:
    item = client.generate(user, 1, timeout=timeout).items[0]
    console.print(f"generated {item.content_type}, {len(item.image)} bytes")
    like = FeedbackEvent(user, 1.0, item_id=item.item_id)
    outcome = client.submit_feedback([like], timeout=timeout)[0]
    console.print(f"accepted a like as number {outcome.sequence}")
    return {"content_type": item.content_type, "bytes": len(item.image), "sequence": outcome.sequence}


def _check_health(client: Client, services: tuple[str, ...], timeout: float, json: bool) -> list[str]:
    """Returns the services that serve. Raises Failure when one does not, after printing the document if wanted."""
    serving = {each: client.is_serving(f"papa.serving.v1.{each}", timeout=timeout) for each in services}
    if json:
        print_json(serving)
    if down := [each for each, serves in serving.items() if not serves]:
        raise Failure(f"not serving: {', '.join(down)}", "papa doctor checks what it needs; its log says more")
    return list(serving)
