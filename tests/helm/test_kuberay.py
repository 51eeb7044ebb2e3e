"""The chart against KubeRay's rules: what a real operator would make of each example and each toggle."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from helm_python.errors import HelmError

from tests import absent
from tests.helm import kuberay, kuberay_fields
from tests.helm.rendering import (
    CHART,
    EXAMPLES,
    ROOT,
    Manifest,
    check,
    example,
    merged,
    only,
    render,
    settings_in,
)
from tests.helm.toggles import TOGGLES

OWN: dict[str, Manifest] = {
    "IPv6 alone": {
        "service": {"listen": "::", "ipFamilyPolicy": "SingleStack"},
        "networkPolicy": {"redisTo": [{"ipBlock": {"cidr": "fd00::/8"}}]},
    },
    "variables of the chart, set again": {
        "extraEnv": [{"name": "HF_HOME", "value": "/cache"}, {"name": "RAY_USAGE_STATS_ENABLED", "value": "1"}],
        "gateway": {"extraEnv": [{"name": "HF_HOME", "value": "/other"}]},
    },
    "every private authority": {
        "trustedCa": {"existingSecret": "authorities"},
        "redis": {"tls": {"caSecret": "redis-ca", "certificateSecret": "redis-client"}},
        "gcsRedis": {"tls": {"caSecret": "ray-redis-ca"}},
        "revisions": {"objectStore": {"url": "s3://bucket/papa", "endpoint": "https://s3.example.com:9000"}},
        "tracing": {"enabled": True, "endpoint": "https://collector:4317", "caSecret": "collector-ca"},
    },
    "one pull secret, one priority, everywhere": {
        "image": {"pullSecrets": ["registry"]},
        "priorityClassName": "high",
        "tolerations": [{"operator": "Exists"}],
    },
}
CASES = [pytest.param(example(name), id=name) for name in EXAMPLES] + [
    pytest.param(merged(example("gpu"), values), id=f"gpu, {name}") for name, values in {**TOGGLES, **OWN}.items()
]


def dialled(manifests: list[Manifest]) -> tuple[str, int]:
    """The address at which the gateway calls the engine."""
    host, _, port = settings_in(manifests)["PAPA_GATEWAY__GENERATOR"].rpartition(":")
    return host, int(port)


def services(manifests: list[Manifest]) -> Iterator[Manifest]:
    """The chart's own, and the one that KubeRay makes."""
    yield from (each for each in manifests if each["kind"] == "Service")
    yield kuberay.serve_service(only(manifests, "RayService"))


@pytest.mark.parametrize("values", CASES)
def test_the_gateway_finds_generators_and_nothing_else(values: Manifest) -> None:
    manifests = render(values)
    host, port = dialled(manifests)
    (service,) = [each for each in services(manifests) if each["metadata"]["name"] == host]
    (opened,) = [each for each in service["spec"]["ports"] if each["port"] == port]
    found = list(kuberay.selected(service, kuberay.pods(only(manifests, "RayService"))))
    assert [pod.group for pod in found] == ["generator"]
    (pod,) = found
    listening = {each["name"]: each["containerPort"] for each in pod.ray["ports"]}
    assert listening[opened["targetPort"]] == 9000


@pytest.mark.parametrize("values", CASES)
def test_the_operator_refuses_nothing(values: Manifest) -> None:
    service = only(render(values), "RayService")
    assert kuberay.refusals(service) == []
    for pod in kuberay.pods(service):
        for part in ("containers", "initContainers", "volumes"):
            names = [each["name"] for each in pod.spec.get(part, [])]
            assert len(names) == len(set(names)), (pod.group, part)
        for container in (*pod.spec["containers"], *pod.spec.get("initContainers", [])):
            variables = [each["name"] for each in container["env"]]
            paths = [each["mountPath"] for each in container["volumeMounts"]]
            assert len(variables) == len(set(variables)) and len(paths) == len(set(paths)), pod.group


@pytest.mark.parametrize("name", ["REDIS_PASSWORD", "RAY_REDIS_ADDRESS", "REDIS_USERNAME"])
def test_a_variable_that_the_operator_keeps_to_itself_is_refused_before(name: str) -> None:
    with pytest.raises(HelmError, match=f"extraEnv: KubeRay refuses {name}"):
        render(merged(example("production"), {"extraEnv": [{"name": name, "value": "x"}]}))


def test_a_name_that_begins_with_a_digit_is_refused_before() -> None:
    """Neither KubeRay nor a Service takes it, and a release may be called so."""
    with pytest.raises(HelmError, match="must begin with a letter"):
        render(example("production"), "2026-shop")
    assert (
        kuberay.refusals(only(render(merged(example("dev"), {"fullnameOverride": "shop"}), "2026"), "RayService")) == []
    )


@pytest.mark.parametrize("values", CASES)
def test_no_pod_is_an_endpoint_of_the_engine_before_it_can_answer(values: Manifest) -> None:
    manifests = render(values)
    host, _ = dialled(manifests)
    (service,) = [each for each in services(manifests) if each["metadata"]["name"] == host]
    for pod in kuberay.selected(service, kuberay.pods(only(manifests, "RayService"))):
        assert not pod.ready_without_a_proxy()
        assert "/var/lib/papa/serving" in str(pod.ray["readinessProbe"]), "the backbone may still be loading"


@pytest.mark.parametrize("values", CASES)
def test_a_policy_lets_the_gateway_reach_the_engine(values: Manifest) -> None:
    manifests = render(values)
    engine = {"port": 9000, "protocol": "TCP"}
    for policy in (each for each in manifests if each["kind"] == "NetworkPolicy"):
        rules = [each for each in policy["spec"].get("ingress", []) if engine in each.get("ports", [])]
        for peer in (peer for rule in rules for peer in rule["from"]):
            gateway = only(manifests, "Deployment", "-gateway")["spec"]["template"]["metadata"]["labels"]
            assert peer["podSelector"]["matchLabels"].items() <= gateway.items()


TRIFLES: dict[str, dict[str, Any]] = {
    "a rate": {"config": {"gateway": {"rates": {"user": 7}}}},
    "a log level": {"config": {"log": {"level": "warning"}}},
    "a playground": {"config": {"playground": {"per_page": 8}}},
    "a gateway's resources": {"gateway": {"resources": {"limits": {"memory": "1Gi"}}}},
    "a certificate": {"gateway": {"tls": {"existingSecret": "other"}}},
    "an alert": {"metrics": {"rules": {"enabled": True, "labels": {"a": "b"}}}},
    "live settings": {"config": {"generator": {"steps": 9, "teaching": 0, "overdraw": 1.5}}},
    "stopped trainers": {"trainer": {"stopped": True}},
    "a label on objects": {"commonLabels": {"team": "shop"}},
    "an image of the gateway": {"image": {"gateway": {"tag": "9.9.9"}}},
    "another trace collector": {"tracing": {"endpoint": "http://other:4317"}},
    "a share of traces": {"config": {"tracing": {"sample_ratio": 0.5}}},
    "a gateway's variable": {"gateway": {"extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}]}},
    "gateways that scale": {"gateway": {"autoscaling": {"maxReplicas": 40}, "drainSeconds": 40}},
    "who may call": {"networkPolicy": {"gatewayFrom": [{"podSelector": {}}], "redisTo": [{"podSelector": {}}]}},
    "a nightly check": {"revisions": {"check": {"schedule": "0 3 * * *"}}},
    "when to scale": {"generator": {"autoscaling": {"targetOngoingRequests": 3}}},
}


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.parametrize("trifle", TRIFLES)
def test_a_trifle_starts_no_second_cluster(name: str, trifle: str) -> None:
    before, after = render(example(name)), render(merged(example(name), TRIFLES[trifle]))
    assert kuberay.cluster_hash(only(before, "RayService")) == kuberay.cluster_hash(only(after, "RayService"))


def test_a_version_of_the_chart_starts_no_second_cluster() -> None:
    """The images are pinned by their own tags."""
    images = {"image": {"gateway": {"tag": "1"}, "server": {"tag": "1"}}}
    values = merged(example("production"), images)
    before = only(render(values), "RayService")
    labels = [each.labels for each in kuberay.pods(before)]
    assert not [label for each in labels for label in each if "chart" in label or "version" in label]
    assert "helm.sh/chart" in before["metadata"]["labels"]


@pytest.mark.parametrize(
    "change",
    [{"config": {"trainer": {"min_labels": 5}}}, {"backbone": {"name": "mnist"}}, {"redis": {"host": "other"}}],
)
def test_what_ray_depends_on_starts_one(change: Manifest) -> None:
    before, after = render(example("production")), render(merged(example("production"), change))
    assert kuberay.cluster_hash(only(before, "RayService")) != kuberay.cluster_hash(only(after, "RayService"))


ROWS = re.findall(r"^\| (`.+?) \| .* \|$", (CHART / "README.md").read_text().partition("## Values")[0], re.MULTILINE)
LISTED = [path for row in ROWS for path in re.findall(r"`([\w.]+)`", row)]
"""Values that the chart's README says start a second cluster."""

NO_FREE_CHOICE: dict[str, Any] = {
    "image.gateway.digest": "sha256:" + "a" * 64,
    "valkey.image.digest": "sha256:" + "b" * 64,
    "gateway.route.parentRefs": [{"name": "other"}],
    "gateway.route.hostnames": ["other.example.com"],
    "gateway.service.type": "NodePort",
    "gateway.service.externalTrafficPolicy": "Local",
    "gateway.ingress": {"enabled": True, "host": "papa.example.com", "tlsSecret": "papa-tls"},
    "generator.podDisruptionBudget.maxUnavailable": 2,
    "revisions.size": "9Gi",
    "valkey.persistence.size": "9Gi",
    "revisions.accessModes": ["ReadWriteOnce"],
    "revisions.objectStore.endpoint": "",
    "revisions.check.schedule": "1 2 * * *",
    "service.ipFamilyPolicy": "PreferDualStack",
    "ray.upgrade.type": "None",
    "metrics.monitors.interval": "30s",
    "metrics.rules.runbookUrl": "https://other.example.com",
    "tracing.endpoint": "https://other.example.com:4317",
    "networkPolicy.operatorFrom": [{"podSelector": {}}],
    "gateway.autoscaling.metrics": [],
    "gateway.service.loadBalancerSourceRanges": [],
    "gateway.extraEnv": [{"name": "A", "value": "1"}],
    "extraObjects": [],
}
"""Values that are limited, or that depend on others."""


def leaves(values: Manifest, path: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        here = f"{path}.{name}".lstrip(".")
        if isinstance(value, dict) and value and here not in NO_FREE_CHOICE:
            yield from leaves(value, here)
        else:
            yield here, value


def listed(path: str) -> bool:
    return any(path == each or path.startswith(f"{each}.") for each in LISTED)


def another(path: str, value: Any) -> Any:
    if path in NO_FREE_CHOICE:
        return NO_FREE_CHOICE[path]
    match value:
        case bool():
            return not value
        case int():
            return value + 1
        case str():
            return "other"
        case list():
            return [{"podSelector": {}}]
    return {"other": "other"}


def nested(path: str, value: Any) -> Manifest:
    for name in reversed(path.split(".")):
        value = {name: value}
    return value


def test_whatever_the_readme_does_not_list_starts_no_second_cluster() -> None:
    """Every other value is another one, all at once."""
    values, changed = yaml.safe_load((CHART / "values.yaml").read_text()), 0
    before = example("production")
    after = before
    for path, value in leaves(merged(values, before)):
        if not listed(path) and not path.startswith("config."):
            after = merged(after, nested(path, another(path, value)))
            changed += 1
    assert changed > 80
    services = [only(render(each), "RayService") for each in (before, after)]
    assert kuberay.cluster_hash(services[0]) == kuberay.cluster_hash(services[1])
    assert services[0]["spec"] != services[1]["spec"], "what Serve deploys does change"


@pytest.mark.parametrize(
    "change",
    [
        {"metrics": {"resources": {"limits": {"memory": "1Gi"}}}},
        {"ray": {"autoscaler": {"idleTimeoutSeconds": 9}}},
        {"extraEnv": [{"name": "A", "value": "1"}]},
        {"image": {"server": {"tag": "9.9.9"}}},
        {"tracing": {"caSecret": "other"}},
        {"generator": {"autoscaling": {"maxReplicas": 40}}},
    ],
    ids=str,
)
def test_what_the_readme_lists_cannot_change_in_place(change: Manifest) -> None:
    (path, _) = next(leaves(change))
    assert listed(path)
    before, after = render(example("production")), render(merged(example("production"), change))
    assert kuberay.cluster_hash(only(before, "RayService")) != kuberay.cluster_hash(only(after, "RayService"))


def test_a_running_pod_keeps_its_settings() -> None:
    """Settings are immutable and named by what they hold; those before are kept for pods of the old template."""
    before = render(example("production"))
    after = render(merged(example("production"), {"config": {"trainer": {"min_labels": 5}}}))
    for manifests in (before, after):
        named = {each["metadata"]["name"]: each for each in manifests if each["kind"] == "ConfigMap"}
        for pod in kuberay.pods(only(manifests, "RayService")):
            hashed, log = (each["configMapRef"]["name"] for each in pod.ray["envFrom"][:2])
            assert named[hashed]["immutable"] is True
            assert named[hashed]["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
            later = set(named[log].get("data") or {})
            assert {name for name in later if not name.startswith(("PAPA_LOG__", "PAPA_TRACING__"))} == set()
            assert not later & {"PAPA_TRACING__ENABLED", "PAPA_TRACING__CA"}, "an older pod has not the file"
    ours, theirs = (kuberay.pods(only(each, "RayService"))[0].ray["envFrom"][0] for each in (before, after))
    assert ours != theirs


@pytest.mark.parametrize("values", CASES)
def test_the_metrics_of_a_pod_cannot_take_it_out(values: Manifest) -> None:
    for pod in kuberay.pods(only(render(values), "RayService"))[1:]:
        (sidecar,) = pod.spec["initContainers"]
        assert (sidecar["restartPolicy"], "readinessProbe" in sidecar) == ("Always", False)
        assert [each["name"] for each in pod.spec["containers"]] == ["ray-worker"]


@pytest.mark.parametrize("values", CASES)
def test_the_head_outlives_the_workers_that_drain_through_it(values: Manifest) -> None:
    head, *workers = kuberay.pods(only(render(values), "RayService"))
    waits = head.ray["lifecycle"]["preStop"]["sleep"]["seconds"]
    drains = [int(re.findall(r"sleep (\d+)", str(pod.ray["lifecycle"]["preStop"]))[0]) for pod in workers]
    assert head.spec["terminationGracePeriodSeconds"] > waits > max(drains)


@pytest.mark.parametrize("values", CASES)
def test_the_account_of_the_cleanup_outlives_the_release(values: Manifest) -> None:
    manifests = render(values)
    service = only(manifests, "RayService")
    if "gcsFaultToleranceOptions" not in service["spec"]["rayClusterConfig"]:
        return
    name = kuberay.cleanup_pod(service).spec["serviceAccountName"]
    accounts = [each for each in manifests if each["kind"] == "ServiceAccount" and each["metadata"]["name"] == name]
    for account in accounts:
        assert account["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


@pytest.mark.parametrize("values", CASES)
def test_the_cleanup_reaches_rays_redis_and_nothing_of_kubernetes(values: Manifest) -> None:
    """Its labels are nearly the head's: a policy for the head must neither shut it in nor let it out further."""
    manifests = render(values)
    service = only(manifests, "RayService")
    cluster = service["spec"]["rayClusterConfig"]
    if "gcsFaultToleranceOptions" not in cluster or not [e for e in manifests if e["kind"] == "NetworkPolicy"]:
        return
    ways = kuberay.ways_out(kuberay.cleanup_pod(service), manifests)
    assert ways is not None, "a namespace that denies by default would shut it in"
    ports = {port["port"] for rule in ways for port in rule.get("ports", [])}
    redis = int(cluster["gcsFaultToleranceOptions"]["redisAddress"].rpartition(":")[2])
    assert {53, redis} <= ports
    assert 6443 not in ports


@pytest.mark.parametrize("values", CASES)
def test_pods_that_ask_for_no_gpu_see_none(values: Manifest) -> None:
    for pod in kuberay.pods(only(render(values), "RayService")):
        asked = any("gpu" in name for name in pod.ray["resources"]["limits"])
        hidden = {"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"} in pod.ray["env"]
        assert asked != hidden, pod.group
        for sidecar in pod.spec.get("initContainers", []):
            assert {"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"} in sidecar["env"], pod.group


@pytest.mark.parametrize("version", kuberay_fields.RELEASES)
@pytest.mark.parametrize("values", CASES)
def test_it_fits_the_oldest_and_the_newest_operator(values: Manifest, version: str) -> None:
    """An operator prunes what it does not know without a word."""
    service = only(render(values), "RayService")
    kuberay_fields.check(service, version)


@pytest.mark.parametrize("values", [pytest.param(example(name), id=name) for name in EXAMPLES])
def test_templates_of_pods_are_as_kubernetes_has_them(values: Manifest) -> None:
    cluster = only(render(values), "RayService")["spec"]["rayClusterConfig"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        template = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "a"}, "template": group["template"]}
        check(template)


def test_a_field_of_a_newer_operator_is_refused_for_the_oldest() -> None:
    service = only(render(example("production")), "RayService")
    service["spec"]["suspend"] = True
    kuberay_fields.check(service, "1.7.0")
    with pytest.raises(AssertionError, match="suspend"):
        kuberay_fields.check(service, "1.6.0")


@absent.needs_shared("crds/kuberay-1.6.0", "KubeRay's definitions of RayService")
def test_the_extract_is_of_the_definitions() -> None:
    assert kuberay_fields.EXTRACT.read_text() == kuberay_fields.extract()


def test_the_oldest_operator_is_named_once() -> None:
    annotations = yaml.safe_load((CHART / "Chart.yaml").read_text())["annotations"]
    assert annotations["papa/kuberay"] == ">=1.6.0"
    page = (ROOT / "docs" / "operations.md").read_text()
    assert '"suspend":true' not in page, "RayService has it from 1.7.0 on"


def test_long_names_stay_apart_and_within_what_kuberay_appends() -> None:
    releases = [f"recommender-for-the-shop-in-the-country-of-{country}"[:53] for country in ("france", "poland")]
    names = [
        {(each["kind"], each["metadata"]["name"]) for each in render(example("dev"), release)} for release in releases
    ]
    assert not names[0] & names[1]
    for release in releases:
        assert kuberay.refusals(only(render(example("dev"), release), "RayService")) == []
    assert max(len(name) for found in names for _, name in found) <= 63
