"""Adapts the given settings to this machine: absolute paths and free ports."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from pydantic import SecretStr

from papa.pipeline_folder import shipped_names
from papa_serving.local.backbone_check import find_backbone
from papa_serving.local.failure import Failure
from papa_serving.local.ports import claim_port
from papa_serving.settings import GatewaySettings, Settings
from papa_serving.settings.exposure import exposed_engine, exposed_gateway, exposed_playground


def with_places(settings: Settings) -> Settings:
    """Makes paths absolute, since child processes may run in another folder. Raises Failure for a missing backbone."""
    folder = find_backbone(settings.backbone)
    # Shipped names and hub ids mean the same everywhere.
    if folder is not None and settings.backbone not in shipped_names():
        backbone = str(folder.absolute())
    else:
        backbone = settings.backbone
    store = settings.store.path or settings.data_dir / "revisions"
    placed = settings.model_copy(update={"data_dir": settings.data_dir.absolute(), "backbone": backbone})
    return updated(placed, store={"path": store.absolute()})


def with_ports(settings: Settings, held: ExitStack | None = None) -> Settings:
    """Checks every port, chooses one for each 0, and reserves them until `held` closes.

    Sets the local generator's port and token in the gateway's settings. Raises Failure.
    """
    gateway: dict[str, object] = {
        "port": claim_port(settings.gateway.host, settings.gateway.port, "gateway.port", held)
    }
    if settings.gateway.tls.certificate is not None:
        # The launcher itself looks at the gateway's health, and need not be trusted by what it starts.
        gateway["health_port"] = claim_port(
            settings.gateway.host, settings.gateway.health_port or 0, "health_port", held
        )
    metrics = {"port": claim_port(settings.metrics.host, settings.metrics.port, "metrics.port", held)}
    page = settings.playground
    if page.enabled:
        settings = updated(settings, playground={"port": claim_port(page.host, page.port, "playground.port", held)})
    if settings.ray.address:
        return updated(settings, gateway=gateway, metrics=metrics)
    if settings.generator.token is None and settings.generator.token_file is None:
        # In the environment of what is started here, which no other user of the machine can read.
        settings = updated(settings, generator={"token": SecretStr(secrets.token_hex(32))})
    port = claim_port("127.0.0.1", settings.ray.serve_grpc_port, "ray.serve_grpc_port", held)
    gateway["generator"] = f"127.0.0.1:{port}"
    return updated(settings, gateway=gateway, metrics=metrics, ray={"serve_grpc_port": port})


def updated(settings: Settings, **sections: Mapping[str, object]) -> Settings:
    """Returns the settings with some fields of some sections replaced."""
    return settings.model_copy(
        update={name: getattr(settings, name).model_copy(update=dict(changes)) for name, changes in sections.items()}
    )


def fresh_metrics_folder(settings: Settings) -> Path:
    """Empties the folder of metrics: the files of ended processes would be counted as if they were running."""
    folder = settings.data_dir / "metrics"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def exposed_ports(settings: Settings) -> list[str]:
    """Warnings about ports that strangers can use. Raises Failure if the settings do not allow such ports."""
    try:
        said = [
            exposed_gateway(settings.gateway),
            exposed_playground(settings.playground) if settings.playground.enabled else "",
            exposed_engine(settings.generator) if settings.ray.address else "",
        ]
    except ValueError as error:
        raise Failure(str(error)) from error
    return [each for each in said if each]


def check_combination(settings: Settings) -> None:
    """Raises Failure for settings that cannot work together."""
    if settings.ray.address and not settings.redis.url:
        raise Failure("an existing Ray cluster needs a Redis that its nodes reach", "name it with --redis")
    if settings.ray.address and not settings.ray.serve_grpc_port:
        hint = "set ray.serve_grpc_port, and gateway.generator to the host and port at which the gateway finds it"
        raise Failure("an existing Ray cluster needs a port for the generator", hint)
    port, generator = settings.ray.serve_grpc_port, settings.gateway.generator
    if settings.ray.address and generator == GatewaySettings().generator and not generator.endswith(f":{port}"):
        raise Failure(
            f"the gateway would look for the generator at {generator}, but ray.serve_grpc_port is {port}",
            f"set gateway.generator to the host of Ray's head and that port: --set gateway.generator=HEAD:{port}",
        )
    exposed_ports(settings)
