"""`papa up`, `papa gateway` and `papa metrics`: processes that run in the foreground until they are stopped."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
from pathlib import Path
from typing import Annotated

import typer

from papa_serving.cli.configuration import ConfigFile, Overrides, load
from papa_serving.cli.output import (
    AsJson,
    check_writable,
    claim_document,
    complain,
    console,
    messages,
    print_fields,
    print_json_line,
    print_text,
    styled,
    voice,
)
from papa_serving.local.failure import Failure

DataDir = Annotated[
    Path | None, typer.Option("--data-dir", help="Folder for everything that is kept.", show_default=False)
]
Host = Annotated[
    str | None, typer.Option("--host", help="Address to listen on; loopback when absent.", show_default=False)
]
Port = Annotated[int | None, typer.Option("--port", help="gRPC port; 0 takes a free one.", show_default=False)]
MetricsPort = Annotated[
    int | None, typer.Option("--metrics-port", help="Prometheus port; 0 takes a free one.", show_default=False)
]
RedisUrl = Annotated[
    str | None,
    typer.Option("--redis", metavar="URL", help="An existing Redis instead of the embedded one.", show_default=False),
]
RayAddress = Annotated[
    str | None, typer.Option("--ray-address", metavar="ADDR", help="An existing Ray cluster.", show_default=False)
]
Backbone = Annotated[
    str | None, typer.Option("--backbone", help="A shipped name, a diffusers folder or a hub id.", show_default=False)
]
Insecure = Annotated[
    bool, typer.Option("--insecure", help="Let other machines call although nobody is asked who they are.")
]
Playground = Annotated[
    bool | None, typer.Option("--playground/--no-playground", help="The web page; on when absent.", show_default=False)
]


def up(
    data_dir: DataDir = None,
    host: Host = None,
    port: Port = None,
    metrics_port: MetricsPort = None,
    redis: RedisUrl = None,
    ray_address: RayAddress = None,
    backbone: Backbone = None,
    playground: Playground = None,
    insecure: Insecure = False,
    file: ConfigFile = None,
    overrides: Overrides = [],  # noqa: B006 - typer copies it
    json: AsJson = False,
) -> None:
    """Run the whole service on this machine until Ctrl-C; starting again finds everything."""
    from papa_serving.local.service import foreground_service
    from papa_serving.local.startup_steps import StartupSteps
    from papa_serving.local.stop_signals import Stopped

    flags = {
        "data_dir": data_dir, "gateway.host": host, "gateway.port": port, "metrics.port": metrics_port,
        "redis.url": redis, "ray.address": ray_address, "backbone": backbone,
        "playground.enabled": playground,
        **(dict.fromkeys(("gateway.insecure", "playground.insecure", "generator.insecure"), True) if insecure else {}),
    }  # fmt: skip

    settings = load(file, overrides, flags)
    if json:
        claim_document()  # Ray says on standard output that a worker died
    with contextlib.suppress(Stopped), foreground_service(settings, StartupSteps(voice(json))) as service:
        addresses: dict[str, object] = {
            "gRPC": service.address, **({"playground": service.playground} if service.playground else {}),
            "metrics": service.metrics, "data": service.data_dir, "logs": service.logs,
        }  # fmt: skip
        if json:
            print_json_line({name.lower(): at for name, at in addresses.items()})
        else:
            console.print()
            print_fields(addresses)
            # Quoted where it is an IPv6 address: brackets are a pattern in some shells.
            call = f"papa generate alice --address {shlex.quote(service.address)}"
            console.print(styled("\nTry ", (call, "bold"), ". Ctrl-C stops everything."))
        for exposed in service.exposed:
            complain(exposed)
        service.wait(lambda said: messages.print(f"papa: {said}"))


def gateway(insecure: Insecure = False, file: ConfigFile = None, overrides: Overrides = []) -> None:  # noqa: B006
    """Run the gateway process alone, as a cluster does."""
    from papa_serving.gateway.__main__ import main

    raise typer.Exit(main(load(file, overrides, {"gateway.insecure": insecure or None})))


_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def metrics(file: ConfigFile = None, overrides: Overrides = [], json: AsJson = False) -> None:  # noqa: B006
    """Serve the metrics that all processes with this data folder write, until Ctrl-C.

    For machines without a gateway process, such as the pods of Ray's workers.
    """
    from papa_serving.gateway.exposition import FOLDER, Exposition
    from papa_serving.settings.addresses import CannotBind

    settings = load(file, overrides)
    folder = settings.data_dir / "metrics"
    check_writable(folder, "choose another folder with --set data_dir=FOLDER")
    folder.mkdir(parents=True, exist_ok=True)
    os.environ[FOLDER] = str(folder)
    # Signals are blocked and then awaited, so that none is lost between the start and the wait.
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        exposition = Exposition(settings.metrics)
    except CannotBind as error:
        raise Failure(str(error), "choose another port with --set metrics.port=0") from error
    url = f"http://{exposition.address}/metrics"
    if json:
        print_json_line({"metrics": url, "folder": folder})
    else:
        print_text(f"metrics of {folder} at {url}")
    signal.sigwait(_SIGNALS)
    exposition.close()
