"""`papa playground`."""

from __future__ import annotations

import importlib.util
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from functools import cache
from typing import TYPE_CHECKING, Annotated

import typer

from papa_serving.cli.configuration import ConfigFile, Overrides, load
from papa_serving.cli.connection import Address, Tenant, open_aio_client
from papa_serving.cli.output import AsJson, complain, console, print_json_line
from papa_serving.client import Item
from papa_serving.demo.shopper import Shopper
from papa_serving.local.failure import Failure
from papa_serving.local.ports import claim_port, reachable
from papa_serving.settings.exposure import exposed_playground

if TYPE_CHECKING:
    from papa_serving.playground.endpoints import Judge

Host = Annotated[
    str | None, typer.Option("--host", help="Address to listen on; loopback when absent.", show_default=False)
]
Port = Annotated[int | None, typer.Option("--port", help="HTTP port; 0 takes a free one.", show_default=False)]
Insecure = Annotated[bool, typer.Option("--insecure", help="Let other machines use the page, which has no login.")]


def playground(
    address: Address = "",
    tenant: Tenant = "",
    host: Host = None,
    port: Port = None,
    insecure: Insecure = False,
    file: ConfigFile = None,
    overrides: Overrides = [],  # noqa: B006 - typer copies it
    json: AsJson = False,
) -> None:
    """Serve the web page on which you rate items and watch the service learn, for a gateway that runs already."""
    from papa_serving.local.backbone_check import takes_prompt
    from papa_serving.playground.application import application
    from papa_serving.playground.endpoints import MAX_PAGE
    from papa_serving.playground.serving import serve

    flags = {"playground.host": host, "playground.port": port, "playground.insecure": insecure or None}
    settings = load(file, overrides, flags)
    mine = settings.playground
    try:
        exposed = exposed_playground(mine)
    except ValueError as error:
        raise Failure(str(error)) from error
    app = application(
        lambda: open_aio_client(settings, address, tenant),
        _judge(settings.backbone),
        mine.hosts,
        per_page=mine.per_page or min(settings.trainer.min_labels, MAX_PAGE),
        prompts=takes_prompt(settings.backbone),
    )
    with ExitStack() as held:
        free = claim_port(mine.host, mine.port, "playground.port", held)
        url = f"http://{reachable(mine.host, free)}"
        if json:
            print_json_line({"playground": url})
        else:
            console.print(f"The playground is at {url}. Ctrl-C ends it.")
        if exposed:
            complain(exposed)
        serve(app, mine.host, free)


def _judge(backbone: str) -> Judge | None:
    """A simulated shopper, if torch is installed and an oracle is shipped for the backbone."""
    from papa_serving.demo.report import class_names
    from papa_serving.local.backbone_check import oracle_of
    from papa_serving.playground.endpoints import Judge

    known = oracle_of(backbone)
    if importlib.util.find_spec("torch") is None or not known:
        return None

    @cache
    def oracle() -> Shopper:
        import torch

        from papa.oracle import load_oracle

        torch.set_num_threads(1)
        return Shopper(load_oracle(known), ())

    def likes(items: Sequence[Item], taste: Collection[int]) -> list[bool]:
        return [int(each) in taste for each in oracle().classes(items)]

    return Judge(class_names(known), likes)
