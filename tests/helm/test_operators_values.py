"""What operators of a cluster ask for first: placement, authorities, addresses, names, and ways in and out."""

from __future__ import annotations

from typing import Any

import pytest
from helm_python.errors import HelmError

from tests.helm.rendering import EXAMPLES, example, merged, notes, only, pod_specs, render, settings_in
from tests.helm.toggles import TOGGLES


def containers(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return [*spec["containers"], *spec.get("initContainers", [])]


def test_where_pods_go_is_said_once_for_all_of_them():
    specs = pod_specs(render(merged(example("dev"), TOGGLES["everything placed"])))
    assert len(specs) == 8
    for pod, spec in specs.items():
        assert spec["nodeSelector"] == {"pool": "papa"}, pod
        assert spec["tolerations"] == [{"key": "papa", "operator": "Exists"}], pod
        assert spec["priorityClassName"] == "service", pod
        assert "nodeAffinity" in spec["affinity"], pod


def test_what_a_component_says_of_its_own_place_wins():
    values = merged(TOGGLES["everything placed"], {"gateway": {"nodeSelector": {"pool": "edge"}}})
    assert pod_specs(render(merged(example("dev"), values)))["demo-papa-gateway"]["nodeSelector"] == {"pool": "edge"}


def test_every_pod_pulls_with_the_secrets():
    specs = pod_specs(render(merged(example("dev"), {"image": {"pullSecrets": ["registry"]}})))
    assert {pod for pod, spec in specs.items() if spec.get("imagePullSecrets") != [{"name": "registry"}]} == set()


@pytest.mark.parametrize("name", EXAMPLES)
def test_no_variable_is_set_twice(name):
    mine = [{"name": "HF_HOME", "value": "/cache"}, {"name": "RAY_USAGE_STATS_ENABLED", "value": "1"}]
    for pod, spec in pod_specs(render(merged(example(name), {"extraEnv": mine}))).items():
        for container in containers(spec):
            names = [each["name"] for each in container.get("env", [])]
            assert len(names) == len(set(names)), (pod, container["name"])
    gateway = pod_specs(render(merged(example(name), {"extraEnv": mine})))["demo-papa-gateway"]["containers"][0]
    assert {"name": "HF_HOME", "value": "/cache"} in gateway["env"]


@pytest.mark.parametrize("component", ["", "gateway"])
def test_a_name_that_the_operator_gives_twice_is_refused(component):
    twice = {"extraEnv": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}
    with pytest.raises(HelmError, match="extraEnv sets a name twice"):
        render(merged(example("dev"), {component: twice} if component else twice))


def test_what_the_gateway_alone_is_given_wins_there_and_is_nowhere_else():
    values = {"extraEnv": [{"name": "A", "value": "all"}], "gateway": {"extraEnv": [{"name": "A", "value": "gateway"}]}}
    specs = pod_specs(render(merged(example("dev"), values)))
    expected = {"demo-papa-gateway": "gateway", "demo-papa-store-check": "gateway", "demo-papa trainer": "all"}
    for pod, given in expected.items():
        assert [each["value"] for each in specs[pod]["containers"][0]["env"] if each["name"] == "A"] == [given]


def test_authorities_certificates_and_a_shared_cache_are_mounted_where_they_are_named():
    values = merged(TOGGLES["more of the operator's"], {"redis": {"tls": {"certificateSecret": "caller"}}})
    manifests = render(merged(example("production"), values))
    url = settings_in(manifests)["PAPA_REDIS__URL"]
    assert "ssl_certfile=/etc/papa/redis-certificate/tls.crt&ssl_keyfile=/etc/papa/redis-certificate/tls.key" in url
    for pod in ("demo-papa-gateway", "demo-papa generator", "demo-papa trainer", "demo-papa head"):
        spec = pod_specs(manifests)[pod]
        mounted = {each["mountPath"] for each in spec["containers"][0]["volumeMounts"]}
        assert {"/etc/papa/trusted", "/etc/papa/redis-certificate", "/hub", "/more"} <= mounted, pod
        variables = {each["name"]: each.get("value") for each in spec["containers"][0]["env"]}
        assert variables["SSL_CERT_FILE"] == variables["REQUESTS_CA_BUNDLE"] == "/etc/papa/trusted/ca-bundle.crt"
        assert variables["HF_HOME"] == "/hub"
        volumes = [each["name"] for each in spec["volumes"]]
        assert len(volumes) == len(set(volumes))
    assert only(manifests, "ConfigMap", "-more")["data"] == {"of": "demo"}


def test_scratch_space_has_an_end():
    for name in EXAMPLES:
        for pod, spec in pod_specs(render(example(name))).items():
            for volume in spec.get("volumes", []):
                if "emptyDir" in volume:
                    assert volume["emptyDir"].get("sizeLimit"), (pod, volume["name"])


def test_it_listens_where_pods_have_ipv6_alone():
    manifests = render(merged(example("dev"), TOGGLES["IPv6"]))
    settings = settings_in(manifests)
    assert settings["PAPA_GATEWAY__HOST"] == settings["PAPA_METRICS__HOST"] == "::"
    service = only(manifests, "RayService")["spec"]
    assert 'host: "::"' in service["serveConfigV2"]
    assert service["rayClusterConfig"]["headGroupSpec"]["rayStartParams"]["dashboard-host"] == "::"
    policies = [each["spec"].get("ipFamilyPolicy") for each in manifests if each["kind"] == "Service"]
    assert policies.count("PreferDualStack") == 2


def test_a_load_balancer_is_narrowed_and_scaled_as_told():
    manifests = render(merged(example("production"), TOGGLES["load balancer"]))
    service = only(manifests, "Service", "-gateway")["spec"]
    assert (service["loadBalancerSourceRanges"], service["externalTrafficPolicy"]) == (["10.0.0.0/8"], "Local")
    scaler = only(manifests, "HorizontalPodAutoscaler")["spec"]
    assert [each["type"] for each in scaler["metrics"]] == ["Resource", "Pods"]
    assert scaler["behavior"]["scaleUp"] == {"stabilizationWindowSeconds": 30}
    assert "externalTrafficPolicy" not in only(render(example("production")), "Service", "-gateway")["spec"]


def test_releases_that_share_a_redis_do_not_meet():
    prefixes = {
        settings_in(render(example("production"), release))["PAPA_REDIS__PREFIX"]
        for release in ("one", "two", "recommender-of-the-shop-in-france", "recommender-of-the-shop-in-poland")
    }
    assert len(prefixes) == 4
    assert max(map(len, prefixes)) <= 32
    assert (
        settings_in(render(merged(example("production"), {"redis": {"prefix": "kept"}})))["PAPA_REDIS__PREFIX"]
        == "kept"
    )


def test_an_upgrade_tells_of_a_prefix_that_an_older_release_did_not_have():
    """Under another prefix Redis looks empty."""
    said = 'begin with "shop-papa:"'
    assert said in notes(example("production"), "shop", upgrade=True)
    assert said not in notes(example("production"), "shop")
    assert "begin with" not in notes(example("production"), "papa", upgrade=True)
    assert "begin with" not in notes(merged(example("production"), {"redis": {"prefix": "papa"}}), "shop", upgrade=True)


@pytest.mark.parametrize("name", ["production", "gpu"])
def test_rendering_twice_gives_the_same(name):
    """As GitOps renders, without the cluster: a generated password would be another one each time."""
    uncached = [render(merged(example(name), {"global": {"again": times}})) for times in (1, 2)]
    assert uncached[0] == uncached[1]
    assert "Secret" not in {each["kind"] for each in uncached[0]}


def test_passwords_under_gitops_are_those_that_are_named():
    named = {"valkey": {"existingSecret": "mine"}, "generator": {"token": {"existingSecret": "engine"}}}
    manifests = render(merged(example("dev"), named))
    assert [each["metadata"]["name"] for each in manifests if each["kind"] == "Secret"] == []
    valkey = pod_specs(manifests)["demo-papa-valkey"]["containers"][0]["env"]
    assert {each["valueFrom"]["secretKeyRef"]["name"] for each in valkey} == {"mine"}
    gateway = pod_specs(manifests)["demo-papa-gateway"]["volumes"]
    assert {"name": "engine", "secret": {"secretName": "engine"}} in gateway


def test_rays_redis_may_have_a_user():
    manifests = render(merged(example("production"), {"gcsRedis": {"username": "ray"}}))
    options = only(manifests, "RayService")["spec"]["rayClusterConfig"]["gcsFaultToleranceOptions"]
    assert options["redisUsername"] == {"value": "ray"}


def test_the_dashboard_is_open_to_the_operator_however_it_was_installed_and_to_nobody_else():
    rules = only(render(example("production")), "NetworkPolicy", "-ray")["spec"]["ingress"]
    (operator,) = [each["from"] for each in rules if {"port": 8265, "protocol": "TCP"} in each.get("ports", [])]
    labels = [each["podSelector"]["matchLabels"] for each in operator]
    assert labels == [
        {"app.kubernetes.io/name": "kuberay-operator"},  # its Helm chart
        {"app.kubernetes.io/name": "kuberay", "app.kubernetes.io/component": "kuberay-operator"},  # kustomize
    ]
    with pytest.raises(HelmError, match="operatorFrom must name the operator"):
        render(merged(example("production"), {"networkPolicy": {"operatorFrom": []}}))


def test_only_the_head_reaches_the_kubernetes_api():
    manifests = render(merged(example("production"), {"networkPolicy": {"extraEgress": []}}))
    ways = {
        each["metadata"]["name"]: {port["port"] for rule in each["spec"]["egress"] for port in rule.get("ports", [])}
        for each in manifests
        if each["kind"] == "NetworkPolicy"
    }
    assert {name for name, ports in ways.items() if 6443 in ports} == {"demo-papa-ray-head"}
    head = only(manifests, "NetworkPolicy", "-ray-head")["spec"]["podSelector"]["matchLabels"]
    assert head["app.kubernetes.io/component"] == "ray-head"
    assert head["ray.io/node-type"] == "head", "or KubeRay's cleanup, which bears the head's other labels, is shut in"


def test_what_the_policies_close_off_is_said():
    store = {"revisions": {"objectStore": {"url": "s3://bucket/papa"}}, "backbone": {"name": "org/model"}}
    closed = {"networkPolicy": {"extraEgress": []}}
    said = notes(merged(merged(example("production"), store), closed))
    for part in ("s3://bucket/papa", "https://login.example.com/.well-known/jwks.json", "org/model", "extraEgress"):
        assert part in said
    assert "let no pod reach" not in notes(merged(example("production"), store))


def test_a_proxy_in_front_speaks_tls_to_the_pods_and_outlives_a_silent_watch():
    ingress = {"gateway": {"ingress": {"enabled": True, "host": "papa.example.com", "tlsSecret": "papa-tls"}}}
    for values, protocol in ((example("production"), "GRPCS"), (example("dev"), "GRPC")):
        annotations = only(render(merged(values, ingress)), "Ingress")["metadata"]["annotations"]
        assert annotations["nginx.ingress.kubernetes.io/backend-protocol"] == protocol
        assert int(annotations["nginx.ingress.kubernetes.io/proxy-read-timeout"]) > 60
    own = merged(
        ingress, {"gateway": {"ingress": {"annotations": {"nginx.ingress.kubernetes.io/proxy-read-timeout": "9"}}}}
    )
    annotations = only(render(merged(example("dev"), own)), "Ingress")["metadata"]["annotations"]
    assert annotations["nginx.ingress.kubernetes.io/proxy-read-timeout"] == "9"
    policy = only(render(example("production")), "BackendTLSPolicy")["spec"]
    assert policy["targetRefs"][0]["name"] == "demo-papa-gateway"
    assert policy["validation"] == {
        "hostname": "papa.example.com",
        "caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": "papa-gateway-ca"}],
    }
