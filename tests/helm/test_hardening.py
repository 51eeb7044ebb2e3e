"""Requirements of every pod: no root, read-only image, probes, pinned images, closed ports, time to drain."""

from __future__ import annotations

import re

import pytest
import yaml

from tests.helm.rendering import EXAMPLES, example, merged, only, pod_specs, render, settings_in

PINNED = re.compile(r"^[a-z0-9./-]+(:\d[\w.-]*|@sha256:[0-9a-f]{64})$")


@pytest.mark.parametrize("name", EXAMPLES)
def test_no_container_can_become_root_or_write_its_image(name):
    for pod, spec in pod_specs(render(example(name))).items():
        assert spec["securityContext"]["runAsNonRoot"] is True, pod
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, pod
        for container in (*spec["containers"], *spec.get("initContainers", [])):
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"] is True, (pod, container["name"])
            assert security["allowPrivilegeEscalation"] is False, (pod, container["name"])
            assert security["capabilities"] == {"drop": ["ALL"]}, (pod, container["name"])


@pytest.mark.parametrize("name", EXAMPLES)
def test_images_are_pinned_and_memory_is_limited(name):
    for pod, spec in pod_specs(render(example(name))).items():
        for container in (*spec["containers"], *spec.get("initContainers", [])):
            assert PINNED.match(container["image"]), (pod, container["image"])
            assert container["resources"]["limits"]["memory"], (pod, container["name"])


def test_a_digest_wins_over_the_tag():
    digest = "sha256:" + "a" * 64
    manifests = render(
        merged(example("dev"), {"image": {"registry": "r.example.com/x", "gateway": {"digest": digest}}})
    )
    (container,) = pod_specs(manifests)["demo-papa-gateway"]["containers"]
    assert container["image"] == f"r.example.com/x/papa-gateway@{digest}"


def test_only_the_autoscaler_talks_to_kubernetes():
    specs = pod_specs(render(example("production")))
    assert [pod for pod, spec in specs.items() if spec["automountServiceAccountToken"]] == ["demo-papa head"]


@pytest.mark.parametrize("name", EXAMPLES)
def test_pods_live_long_enough_to_drain(name):
    manifests = render(example(name))
    settings = settings_in(manifests)
    gateway = pod_specs(manifests)["demo-papa-gateway"]
    pause = gateway["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert gateway["terminationGracePeriodSeconds"] > pause + float(settings["PAPA_GATEWAY__DRAIN_SECONDS"])
    generator = pod_specs(manifests)["demo-papa generator"]
    serve = yaml.safe_load(only(manifests, "RayService")["spec"]["serveConfigV2"])
    drain = serve["applications"][0]["deployments"][0]["graceful_shutdown_timeout_s"]
    assert drain > float(settings["PAPA_GENERATOR__DRAIN_SECONDS"])
    hook = generator["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][-1]
    (sleep,) = re.findall(r"sleep (\d+)", hook)
    assert generator["terminationGracePeriodSeconds"] > int(sleep) > drain


def test_ray_is_closed_to_strangers():
    manifests = render(example("production"))
    policy = only(manifests, "NetworkPolicy", "-ray")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    everybody = [rule for rule in policy["ingress"] if not rule.get("from")]
    assert everybody == []
    open_to = {port["port"]: list(rule["from"]) for rule in policy["ingress"] for port in rule.get("ports", [])}
    assert set(open_to) == {9000, 8265, 52365, 8000, 9464, 8080}
    (gateway,) = open_to[9000]
    assert gateway["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "gateway"
    assert all("kuberay-operator" in each["podSelector"]["matchLabels"].values() for each in open_to[8265])
    cluster = only(manifests, "RayService")["spec"]["rayClusterConfig"]
    assert cluster["authOptions"] == {"mode": "token"}
    assert all(
        each["spec"]["type"] == "ClusterIP"
        for each in manifests
        if each["kind"] == "Service" and "type" in each["spec"]
    )


def test_the_test_pod_may_call_a_gateway_that_is_not_open_to_everybody():
    manifests = render(example("production"))
    calls = only(manifests, "NetworkPolicy", "-gateway")["spec"]["ingress"][0]
    assert len(calls["from"]) == 3 and calls["ports"] == [{"port": 50051, "protocol": "TCP"}]
    labels = only(manifests, "Pod", "-smoke")["metadata"]["labels"]
    allowed = [each["podSelector"]["matchLabels"] for each in calls["from"] if "podSelector" in each]
    assert [each for each in allowed if each.items() <= labels.items()]
    everybody = only(render(example("dev")), "NetworkPolicy", "-gateway")["spec"]["ingress"][0]
    assert "from" not in everybody


def test_the_test_pod_stays_until_its_log_has_been_read():
    """Helm deletes a pod that succeeded before `helm test --logs` asks for its log."""
    annotations = only(render(example("dev")), "Pod", "-smoke")["metadata"]["annotations"]
    assert annotations["helm.sh/hook-delete-policy"] == "before-hook-creation"


def test_selectors_of_policies_and_services_meet_the_pods():
    manifests = render(example("dev"))
    pods = [
        each["spec"]["template"]["metadata"]["labels"]
        for each in manifests
        if each["kind"] in ("Deployment", "StatefulSet")
    ]
    cluster = only(manifests, "RayService")["spec"]["rayClusterConfig"]
    for node, group in [("head", cluster["headGroupSpec"]), *(("worker", g) for g in cluster["workerGroupSpecs"])]:
        pods.append({**group["template"]["metadata"]["labels"], "ray.io/node-type": node})
    services = [each["spec"]["selector"] for each in manifests if each["kind"] == "Service"]
    budgets = [each["spec"]["selector"]["matchLabels"] for each in manifests if each["kind"] == "PodDisruptionBudget"]
    policies = [each["spec"]["podSelector"]["matchLabels"] for each in manifests if each["kind"] == "NetworkPolicy"]
    for selector in (*services, *budgets, *policies):
        assert [pod for pod in pods if selector.items() <= pod.items()], selector


def test_a_budget_never_forbids_every_eviction():
    for name in EXAMPLES:
        manifests = render(example(name))
        pods = {
            group["groupName"]: group["minReplicas"]
            for group in only(manifests, "RayService")["spec"]["rayClusterConfig"]["workerGroupSpecs"]
        }
        for each in manifests:
            if each["kind"] == "PodDisruptionBudget" and "minAvailable" in each["spec"]:
                component = each["metadata"]["labels"]["app.kubernetes.io/component"]
                assert 0 < each["spec"]["minAvailable"] < pods[component]


def test_changed_settings_reach_running_pods():
    before, after = (
        render(merged(example("dev"), {"config": {"trainer": {"min_labels": number}}})) for number in (5, 6)
    )
    for path in (
        lambda found: only(found, "Deployment")["spec"]["template"],
        lambda found: only(found, "RayService")["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["template"],
    ):
        templates = [path(each)["spec"]["containers"][0]["envFrom"][0] for each in (before, after)]
        assert templates[0] != templates[1]


def test_a_password_is_only_ever_a_reference():
    for name in EXAMPLES:
        for spec in pod_specs(render(example(name))).values():
            for container in spec["containers"]:
                for variable in container.get("env", []):
                    if "PASSWORD" in variable["name"] or "HEADERS" in variable["name"] or "TOKEN" in variable["name"]:
                        is_file = variable["name"].endswith("_FILE") and variable["value"].startswith("/etc/papa/")
                        assert is_file or "secretKeyRef" in variable["valueFrom"]


def test_what_workers_count_reaches_the_container_that_serves_it():
    manifests = render(example("production"))
    settings = settings_in(manifests)
    serve = yaml.safe_load(only(manifests, "RayService")["spec"]["serveConfigV2"])
    folders = {
        deployment["ray_actor_options"]["runtime_env"]["env_vars"]["PROMETHEUS_MULTIPROC_DIR"]
        for application in serve["applications"]
        for deployment in application["deployments"]
    }
    assert folders == {f"{settings['PAPA_DATA_DIR']}/metrics"}
    for pod in ("demo-papa generator", "demo-papa trainer"):
        spec = pod_specs(manifests)[pod]
        assert spec["shareProcessNamespace"] is True, "the exporter tells the living from the dead by their ids"
        mounts = [
            {each["mountPath"]: each["name"] for each in container["volumeMounts"]}
            for container in (*spec["containers"], *spec["initContainers"])
        ]
        assert mounts[0][settings["PAPA_DATA_DIR"]] == mounts[1][settings["PAPA_DATA_DIR"]] == "data"
        assert [port["name"] for port in spec["initContainers"][0]["ports"]] == ["papa-metrics"]
