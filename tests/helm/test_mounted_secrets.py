"""Passwords, tokens and keys reach the pods as files, so that a changed Secret is taken up while they run."""

from __future__ import annotations

from pathlib import Path

import pytest
from papa_serving.cli.configuration import load
from papa_serving.settings.section import Section

from tests.helm.rendering import Manifest, example, merged, only, pod_specs, render, settings_in

OBJECTS = {"revisions": {"objectStore": {"url": "s3://bucket/papa", "existingSecret": "papa-s3"}}}
PODS = ("demo-papa-gateway", "demo-papa generator", "demo-papa trainer", "demo-papa head", "demo-papa-store-check")
FILES = {
    "PAPA_REDIS__PASSWORD_FILE": ("papa-redis", "redis-password"),
    "PAPA_GENERATOR__TOKEN_FILE": ("papa-engine", "token"),
    "PAPA_STORE__CREDENTIALS": ("papa-s3", ""),
    "PAPA_TRACING__HEADERS_FILE": ("papa-tracing", "headers"),
}


def files_of(spec: Manifest) -> dict[str, tuple[str, str]]:
    """Variables of a pod that name a file of a mounted Secret: the Secret and the key, "" for all of it."""
    secrets = {each["name"]: each["secret"]["secretName"] for each in spec["volumes"] if "secret" in each}
    (container,) = [each for each in spec["containers"] if "papa-" in each["image"]]
    mounts = {each["mountPath"]: secrets[each["name"]] for each in container["volumeMounts"] if each["name"] in secrets}
    values = {each["name"]: str(each.get("value", "")) for each in container["env"]}
    found = {}
    for name, value in values.items():
        for path, secret in mounts.items():
            if value == path or value.startswith(f"{path}/"):
                found[name] = (secret, value.removeprefix(path).lstrip("/"))
    return found


@pytest.mark.parametrize("pod", PODS)
def test_every_pod_reads_them_from_files(pod: str) -> None:
    spec = pod_specs(render(merged(example("production"), OBJECTS)))[pod]
    assert files_of(spec).items() >= FILES.items()
    (container,) = [each for each in spec["containers"] if "papa-" in each["image"]]
    variables = {each["name"] for each in container["env"] if "secretKeyRef" in each.get("valueFrom", {})}
    assert not variables, "a pod reads its variables only when it starts"
    assert not [each for each in container["envFrom"] if "secretRef" in each]


def test_the_service_finds_them_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    manifests = render(merged(example("production"), OBJECTS))
    for variable, value in settings_in(manifests).items():
        monkeypatch.setenv(variable, value)
    for variable, (secret, key) in files_of(pod_specs(manifests)["demo-papa-gateway"]).items():
        path = tmp_path / secret / key
        path.parent.mkdir(exist_ok=True)
        path.write_text("authorization=x") if key else path.mkdir(exist_ok=True)
        monkeypatch.setenv(variable, str(path))
    settings = load(None)
    named = (settings.redis.password_file, settings.generator.token_file, settings.store.credentials)
    assert named == (tmp_path / "papa-redis/redis-password", tmp_path / "papa-engine/token", tmp_path / "papa-s3")
    assert settings.tracing.headers_file == tmp_path / "papa-tracing/headers"
    sections: tuple[Section, ...] = (settings.redis, settings.generator, settings.tracing)
    read = [getattr(section, name) for section, name in zip(sections, ("password", "token", "headers"), strict=True)]
    assert read == [None] * 3


def test_ray_shows_its_redis_a_certificate() -> None:
    manifests = render(merged(example("production"), {"gcsRedis": {"tls": {"certificateSecret": "ray-client"}}}))
    for pod in ("demo-papa head", "demo-papa generator"):
        files = files_of(pod_specs(manifests)[pod])
        assert files["RAY_REDIS_CLIENT_CERT"] == ("ray-client", "tls.crt")
        assert files["RAY_REDIS_CLIENT_KEY"] == ("ray-client", "tls.key")
    without = only(render(example("production")), "RayService")
    assert "RAY_REDIS_CLIENT" not in str(without)
