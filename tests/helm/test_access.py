"""TLS and tokens: what the chart mounts, what it tells the gateway, and what it warns of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helm_python.chart import Chart
from helm_python.errors import HelmError
from papa_serving.cli.configuration import load
from papa_serving.settings.variables import in_environment

from tests.helm.rendering import CHART, example, merged, notes, only, pod_specs, render, settings_in

TLS = {"gateway": {"tls": {"existingSecret": "cert", "clientCaSecret": "callers"}}}
KEYS = {
    "gateway": {"auth": {"existingSecret": "keys", "key": "keys.toml"}},
    "config": {"gateway": {"auth": {"mode": "keys"}}},
}


def gateway(values: dict[str, Any]) -> dict[str, Any]:
    manifests = render(merged(example("dev"), values))
    return only(manifests, "Deployment", "-gateway")["spec"]["template"]["spec"]


def mounted(spec: dict[str, Any]) -> dict[str, str]:
    """Secret by the folder that holds it, without those that every pod has."""
    (container,) = spec["containers"]
    secrets = {each["name"]: each["secret"]["secretName"] for each in spec["volumes"] if "secret" in each}
    mounts = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
    return {path: secrets[name] for name, path in mounts.items() if name in secrets.keys() - {"engine", "redis"}}


def settings_of(values: dict[str, Any]) -> dict[str, str]:
    return settings_in(render(merged(example("dev"), values)))


def test_tls_is_mounted_and_probes_go_to_a_port_without_it() -> None:
    spec = gateway(TLS)
    assert mounted(spec) == {"/etc/papa/tls": "cert", "/etc/papa/client-ca": "callers"}
    (container,) = spec["containers"]
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["grpc"]["port"] == ports["health"] == 50052
    data = settings_of(TLS)
    assert data["PAPA_GATEWAY__TLS__CERTIFICATE"].startswith("/etc/papa/tls/")
    assert data["PAPA_GATEWAY__TLS__CLIENT_CA"] == "/etc/papa/client-ca/ca.crt"
    service = only(render(merged(example("dev"), TLS)), "Service", "-gateway")
    assert service["spec"]["ports"][0]["appProtocol"] == "https"


def test_without_tls_nothing_of_it_is_there() -> None:
    spec = gateway({})
    assert mounted(spec) == {}
    assert {spec["containers"][0][p]["grpc"]["port"] for p in ("startupProbe", "readinessProbe")} == {50051}
    assert not [name for name in settings_of({}) if "TLS" in name or "AUTH" in name]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (KEYS, {"mode": "keys", "keys_file": Path("/etc/papa/auth/keys.toml")}),
        (
            {
                "gateway": {"auth": {"existingSecret": "keys"}},
                "config": {"gateway": {"auth": {"mode": "jwt", "audience": "papa", "issuer": "https://i"}}},
            },
            {"mode": "jwt", "jwks": "/etc/papa/auth/jwks.json", "audience": "papa"},
        ),
    ],
)
def test_keys_reach_the_settings(values: dict[str, Any], expected: dict[str, Any]) -> None:
    with in_environment(settings_of(values)):
        auth = load(None).gateway.auth
    assert {name: getattr(auth, name) for name in expected} == expected
    assert mounted(gateway(values)) == {"/etc/papa/auth": "keys"}


def test_only_the_gateway_holds_keys() -> None:
    for name, spec in pod_specs(render(merged(example("dev"), merged(TLS, KEYS)))).items():
        secrets = {each["secret"]["secretName"] for each in spec.get("volumes", []) if "secret" in each}
        assert "gateway" in name or not secrets & {"cert", "callers", "keys"}, name


def test_the_test_pod_shows_what_the_gateway_asks_for() -> None:
    smoke = {"tokenSecret": "token", "caSecret": "ca", "certificateSecret": "mine"}
    manifests = render(merged(example("dev"), merged(TLS, {"gateway": {"smoke": smoke}})))
    spec = only(manifests, "Pod", "-smoke")["spec"]
    assert mounted(spec) == {"/etc/papa/token": "token", "/etc/papa/ca": "ca", "/etc/papa/certificate": "mine"}
    environment = {each["name"]: each["value"] for each in spec["containers"][0]["env"]}
    with in_environment({name: value for name, value in environment.items() if name.startswith("PAPA_")}):
        client = load(None).client
    assert client.tls
    assert client.token_file == Path("/etc/papa/token/token")
    assert (client.ca, client.key) == (Path("/etc/papa/ca/ca.crt"), Path("/etc/papa/certificate/tls.key"))


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"gateway": {"tls": {"clientCaSecret": "callers"}}}, "existingSecret"),
        ({"config": {"gateway": {"tls": {"certificate": "/x"}}}}, "tls"),
        ({"config": {"gateway": {"auth": {"keys_file": "/x"}}}}, "keys_file"),
        ({"config": {"redis": {"password_file": "/x"}}}, "password_file"),
        ({"config": {"gateway": {"auth": {"mode": "maybe"}}}}, "mode"),
        ({"config": {"client": {"token": "secret"}}}, "client"),
    ],
)
def test_bad_values_are_refused(values: dict[str, Any], named: str) -> None:
    with Chart.load(CHART) as chart, pytest.raises(HelmError, match=named):
        chart.validate_schema(merged(example("dev"), values))


def test_notes_warn_where_nobody_is_asked() -> None:
    assert "mode is none" in notes(example("dev"))
    assert "mode is none" not in notes(merged(example("dev"), KEYS))
    assert "unencrypted" in notes(merged(example("dev"), KEYS))
    assert "unencrypted" not in notes(merged(example("dev"), merged(KEYS, TLS)))


def test_ray_asks_for_a_token_and_its_dashboard_is_closed() -> None:
    service = only(render(example("production")), "RayService")
    assert service["spec"]["rayClusterConfig"]["authOptions"] == {"mode": "token"}


def test_a_gateway_that_asks_nobody_is_refused_unless_it_is_said() -> None:
    open_to_all = merged(example("dev"), {"config": {"gateway": {"insecure": False}}})
    with pytest.raises(HelmError, match=r"config\.gateway\.auth\.mode .*config\.gateway\.insecure=true"):
        render(open_to_all)
    assert settings_in(render(example("dev")))["PAPA_GATEWAY__INSECURE"] == "true"
    callers = {"gateway": {"tls": {"existingSecret": "tls", "clientCaSecret": "callers"}}}
    for asking in (KEYS, callers):
        assert settings_in(render(merged(open_to_all, asking)))["PAPA_GATEWAY__INSECURE"] == "false"
