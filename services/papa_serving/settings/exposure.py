"""Finds ports that strangers can use: they listen beyond loopback and need no credential.

Such a port must be allowed explicitly, by `insecure` of its section, and is then announced. Metrics and the
health port are open by design: they tell of no user, and scrapers and probes carry no credentials.
"""

from __future__ import annotations

from papa_serving.contracts.channels import is_loopback
from papa_serving.settings.addresses import host_port
from papa_serving.settings.schema import GatewaySettings, GeneratorSettings, PlaygroundSettings

_EVERYBODY = "may read, change and delete every user"


def exposed_gateway(settings: GatewaySettings) -> str:
    """The warning about a gateway without authentication; "" if it has one or only this machine can reach it.

    A client certificate counts as asking. Raises ValueError where such a gateway is not allowed.
    """
    asked = settings.auth.mode != "none" or settings.tls.client_ca is not None
    where = host_port(settings.host, settings.port)
    if asked or is_loopback(where):
        return ""
    if not settings.insecure:
        raise ValueError(
            f"gateway.host {settings.host} lets other machines call, and nobody is asked who they are: set "
            "gateway.auth.mode (docs/security.md), or allow it with --insecure (gateway.insecure = true)"
        )
    return f"INSECURE: nobody is asked who calls, and whoever reaches the gateway at {where} {_EVERYBODY}"


def exposed_playground(settings: PlaygroundSettings) -> str:
    """The warning about a web page that other machines can reach; "" if only this machine can.

    The page has no login: it shows its own token for everybody. Raises ValueError where that is not allowed.
    """
    where = host_port(settings.host, settings.port)
    if is_loopback(where):
        return ""
    if not settings.insecure:
        raise ValueError(
            f"playground.host {settings.host} lets other machines use the page, which has no login: keep it on "
            "loopback behind a proxy that asks who they are, or allow it with --insecure (playground.insecure = true)"
        )
    return f"INSECURE: the playground has no login, and whoever reaches it at {where} {_EVERYBODY} that its token may"


def exposed_engine(settings: GeneratorSettings) -> str:
    """The warning about an engine's port without a token. Ray Serve opens that port on every interface.

    Raises ValueError where that is not allowed.
    """
    if settings.token is not None and settings.token.get_secret_value().split():
        return ""
    if settings.token is None and settings.token_file is not None:
        return ""
    if not settings.insecure:
        raise ValueError(
            "the engine's port listens on every interface, and nobody is asked who calls: set generator.token or "
            "generator.token_file for generators and gateways, or allow it with generator.insecure = true"
        )
    return "INSECURE: the engine's port asks nobody who calls, and whoever reaches it may generate for every user"
