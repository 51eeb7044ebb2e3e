"""Values that operators try: either every manifest fits together, or Helm refuses and says what to change."""

from __future__ import annotations

from typing import Any

import pytest
from helm_python.errors import HelmError

from tests.helm import kuberay
from tests.helm.rendering import Manifest, check, example, merged, only, pod_specs, render

RANGES = {"loadBalancerSourceRanges": ["10.0.0.0/8"]}
RAYS_REDIS = {
    "valkey": {"enabled": False},
    "redis": {"host": "likes", "existingSecret": "likes", "username": "papa"},
    "gcsRedis": {
        "host": "ray", "username": "ray", "existingSecret": "ray",
        "tls": {"caSecret": "ca", "certificateSecret": "certificate"},
    },
}  # fmt: skip
EVERY_SECRET = {
    "valkey": {"existingSecret": "valkey"},
    "generator": {"token": {"existingSecret": "engine", "key": "secret"}},
    "gateway": {
        "tls": {"existingSecret": "tls", "clientCaSecret": "callers", "clientCrlKey": "crl.pem"},
        "auth": {"existingSecret": "keys"},
    },
    "tracing": {"enabled": True, "endpoint": "https://collector:4317", "existingSecret": "otlp", "caSecret": "otlp-ca"},
    "trustedCa": {"existingSecret": "authorities"},
    "revisions": {"objectStore": {"url": "s3://bucket/papa", "existingSecret": "s3"}},
}
FIT: dict[str, Manifest] = {
    "IPv6 alone": {"service": {"listen": "::", "ipFamilyPolicy": "SingleStack"}},
    "as many trainers as ever": {"trainer": {"autoscaling": {"minActors": 3, "maxActors": 3}}},
    "one trainer": {"trainer": {"autoscaling": {"minActors": 1, "maxActors": 1}}},
    "Ray's Redis with a user and certificates": RAYS_REDIS,
    "every secret is named": EVERY_SECRET,
    "labels given twice": {
        "podLabels": {"team": "shop", "cost": "7"},
        "gateway": {"podLabels": {"team": "edge"}},
        "ray": {"head": {"podLabels": {"team": "ray"}}},
    },
    "variables of the chart": {"extraEnv": [{"name": "HF_HOME", "value": "/x"}, {"name": "HOME", "value": "/y"}]},
    "a variable of a Secret": {
        "extraEnv": [{"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}}]
    },
    "lists put back": {"extraEnv": None, "extraVolumes": None, "tolerations": None, "podLabels": None},
    "volumes of the operator": {
        "extraVolumes": [{"name": "a", "emptyDir": {}}, {"name": "b", "emptyDir": {}}],
        "extraVolumeMounts": [{"name": "a", "mountPath": "/etc/papas"}, {"name": "b", "mountPath": "/data"}],
        "nodeSelector": {"gpu": "true"},
    },
    "no resources": {part: {"resources": {}} for part in ("gateway", "generator", "trainer")},
    "hub cache": {"backbone": {"name": "shop/pictures", "hubClaim": "hub"}},
    "pods scaled by hand": {"gateway": {"autoscaling": {"enabled": False}, "replicas": 3}},
    "pods scaled": {"gateway": {"autoscaling": {"enabled": True, "minReplicas": 2, "maxReplicas": 2}}},
    "accounts of the cluster": {"serviceAccount": {"create": False, "gatewayName": "a", "rayName": "b"}},
    "nobody scrapes, no policy": {"networkPolicy": {"enabled": False, "metricsFrom": []}},
    "Sentinels": {"valkey": {"enabled": False}, "redis": {"host": "s", "port": 26379, "sentinel": {"service": "main"}}},
}


def mounted(*mounts: Manifest) -> Manifest:
    """Values with one volume of the operator's that is mounted so."""
    more = [{"name": "more"} | mount for mount in mounts]
    return {"extraVolumes": [{"name": "more", "emptyDir": {}}], "extraVolumeMounts": more}


REFUSED: dict[str, tuple[Manifest, str]] = {
    "a label that selects": ({"podLabels": {"app.kubernetes.io/component": "x"}}, "podLabels: .*component"),
    "the same of one component": ({"trainer": {"podLabels": {"app.kubernetes.io/instance": "x"}}}, "podLabels: "),
    "a label of KubeRay": ({"generator": {"podLabels": {"ray.io/serve": "false"}}}, r"podLabels: .*ray\.io/serve"),
    "a label of the chart": ({"commonLabels": {"app.kubernetes.io/part-of": "shop"}}, "commonLabels: .*part-of"),
    "a label that is a number": ({"commonLabels": {"cost": 12}}, "commonLabels/cost"),
    "a pod's label that is a number": ({"gateway": {"podLabels": {"cost": 12}}}, "podLabels/cost"),
    "an annotation that is no text": ({"ray": {"head": {"podAnnotations": {"scrape": True}}}}, "podAnnotations/scrape"),
    "a variable that is a number": ({"extraEnv": [{"name": "A", "value": 1}]}, "extraEnv/0/value"),
    "a variable without a name": ({"gateway": {"extraEnv": [{"value": "1"}]}}, "extraEnv/0"),
    "a volume of the chart": ({"extraVolumes": [{"name": "tmp", "emptyDir": {}}]}, "volume called tmp"),
    "a place of the chart": ({"extraVolumeMounts": [{"name": "more", "mountPath": "/tmp/"}]}, "mounts .* at /tmp/"),
    "fewer at most than at least": (
        {"gateway": {"autoscaling": {"enabled": True, "minReplicas": 5, "maxReplicas": 2}}},
        r"\(2\) is less than .*\(5\)",
    ),
    "fewer replicas at most": ({"generator": {"autoscaling": {"minReplicas": 5, "maxReplicas": 2}}},
                               r"generator\.autoscaling: maxReplicas \(2\) is less than minReplicas \(5\)"),
    "fewer trainers at most": ({"trainer": {"autoscaling": {"minActors": 5, "maxActors": 2}}},
                               r"trainer\.autoscaling: maxActors \(2\) is less than minActors \(5\)"),
    "where a password of the chart is": (mounted({"mountPath": "/etc/papa/redis"}), "mounts .* at /etc/papa/redis"),
    "beside the chart's files": (mounted({"mountPath": "/etc/papa/mine/"}), "mounts .* at /etc/papa/mine/"),
    "over the chart's files": (mounted({"mountPath": "/etc//papa"}), "mounts .* at /etc//papa"),
    "a mount without a place": (mounted({}), "extraVolumeMounts/0"),
    "a mount at no path": (mounted({"mountPath": "data"}), "extraVolumeMounts/0/mountPath"),
    "two mounts at one place": (mounted({"mountPath": "/x"}, {"mountPath": "/x/"}), "two volumes are mounted at /x/"),
    "two volumes of one name": ({"extraVolumes": [{"name": "a", "emptyDir": {}}] * 2}, "two volumes are called a"),
    "a volume without a name": ({"extraVolumes": [{"emptyDir": {}}]}, "extraVolumes/0"),
    "a node selected by no text": ({"gateway": {"nodeSelector": {"gpu": True}}}, "gateway/nodeSelector/gpu"),
    "the same of all pods": ({"nodeSelector": {"gpu": 1}}, "nodeSelector/gpu"),
    "a range without a load balancer": ({"gateway": {"service": RANGES}}, "loadBalancerSourceRanges"),
    "a name with a dot": ({"fullnameOverride": "shop.one"}, "shop.one must begin with a letter and hold"),
    "no operator": ({"networkPolicy": {"operatorFrom": []}}, "must name the operator"),
}  # fmt: skip


def templates(manifests: list[Manifest]) -> list[dict[str, str]]:
    """The labels of every pod that there will be."""
    ray = [pod.labels for pod in kuberay.pods(only(manifests, "RayService"))]
    owners = [each for each in manifests if each["kind"] in ("Deployment", "StatefulSet")]
    return ray + [each["spec"]["template"]["metadata"]["labels"] for each in owners]


def selectors(manifests: list[Manifest]) -> dict[str, dict[str, str]]:
    """By which labels Services, disruption budgets and owners of pods select them."""
    found: dict[str, dict[str, str]] = {}
    for each in manifests:
        name = f"{each['kind']} {each['metadata']['name']}"
        if each["kind"] == "Service":
            found[name] = each["spec"]["selector"]
        elif each["kind"] in ("Deployment", "StatefulSet", "PodDisruptionBudget"):
            found[name] = each["spec"]["selector"]["matchLabels"]
    return found


def assert_it_fits(manifests: list[Manifest]) -> None:
    names = [(each["kind"], each["metadata"]["name"]) for each in manifests]
    assert len(names) == len(set(names))
    labels = templates(manifests)
    for name, selector in selectors(manifests).items():
        assert any(selector.items() <= each.items() for each in labels), f"{name} selects no pod"
    for pod, spec in pod_specs(manifests).items():
        volumes = [each["name"] for each in spec.get("volumes", [])]
        assert len(volumes) == len(set(volumes)), pod
        for container in spec["containers"]:
            for what, key in (("env", "name"), ("volumeMounts", "mountPath")):
                given = [each[key] for each in container.get(what, [])]
                assert len(given) == len(set(given)), (pod, container["name"], what)
    assert kuberay.refusals(only(manifests, "RayService")) == []
    for each in manifests:
        if each["kind"] in ("Deployment", "StatefulSet", "Service", "CronJob", "HorizontalPodAutoscaler"):
            check(each)


@pytest.mark.parametrize("name", FIT)
def test_it_fits_together(name: str) -> None:
    assert_it_fits(render(merged(example("dev"), FIT[name])))


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_and_says_what_to_change(name: str) -> None:
    values, message = REFUSED[name]
    with pytest.raises(HelmError, match=message):
        render(merged(example("dev"), values))


def test_what_a_component_says_of_its_labels_wins() -> None:
    gateway = only(render(merged(example("dev"), FIT["labels given twice"])), "Deployment")
    labels = gateway["spec"]["template"]["metadata"]["labels"]
    assert (labels["team"], labels["cost"]) == ("edge", "7")


def test_two_releases_in_a_namespace_share_no_object_and_no_pod() -> None:
    longest = "shop-recommendations-of-the-european-market-in-spring"
    mine, theirs = (render(example("dev"), release) for release in (f"{longest[:52]}a", f"{longest[:52]}b"))
    for manifests in (mine, theirs):
        assert_it_fits(manifests)

    def names(manifests: list[Manifest]) -> set[tuple[Any, Any]]:
        return {(each["kind"], each["metadata"]["name"]) for each in manifests}

    assert not names(mine) & names(theirs)
    for selector in selectors(mine).values():
        assert not any(selector.items() <= labels.items() for labels in templates(theirs))


def test_a_slash_at_the_end_of_the_registry_is_not_doubled() -> None:
    specs = pod_specs(render(merged(example("dev"), {"image": {"registry": "registry.example/shop/"}})))
    assert specs["demo-papa-gateway"]["containers"][0]["image"].startswith("registry.example/shop/papa-gateway:")
