"""A model of the parts of KubeRay on which this chart depends.

Each rule names the file and function of ray-project/kuberay that it was read from; they are the same at v1.6.0 and
v1.7.0 unless a rule says otherwise. All files are below ray-operator/controllers/ray.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Manifest = dict[str, Any]

SERVING = "ray.io/serve"
NODE_TYPE = "ray.io/node-type"
LONGEST_NAME = 47
OF_FAULT_TOLERANCE = {"REDIS_PASSWORD", "RAY_REDIS_ADDRESS", "REDIS_USERNAME"}
"""Variables of the head that are gcsFaultToleranceOptions' alone."""
PROXY_HEALTH = "http://localhost:8000/-/healthz"


@dataclass(frozen=True)
class Pod:
    """One kind of pod of the cluster, with the labels that KubeRay gives it."""

    group: str
    labels: dict[str, str]
    spec: Manifest

    @property
    def ray(self) -> Manifest:
        """The container that Ray runs in: the first (common/pod.go, RayContainerIndex)."""
        return self.spec["containers"][0]

    def ready_without_a_proxy(self) -> bool:
        """Whether it can count as ready though no Serve proxy runs beside it.

        A worker without a readiness probe of its own gets one that waits for the proxy (common/pod.go,
        initLivenessAndReadinessProbe).
        """
        probe = self.ray.get("readinessProbe")
        return probe is not None and PROXY_HEALTH not in json.dumps(probe)


def pods(service: Manifest) -> list[Pod]:
    """Head and workers (common/pod.go, BuildPod: every worker of a RayService is labelled for Serve, no head is)."""
    cluster = service["spec"]["rayClusterConfig"]
    head = cluster["headGroupSpec"]["template"]
    labels = {NODE_TYPE: "worker", SERVING: "true"}
    workers = [_pod(group["groupName"], group["template"], labels) for group in cluster["workerGroupSpecs"]]
    return [_pod("head", head, {NODE_TYPE: "head", SERVING: "false"}), *workers]


def _pod(group: str, template: Manifest, labels: dict[str, str]) -> Pod:
    return Pod(group, {**template["metadata"].get("labels", {}), **labels}, template["spec"])


def serve_service(service: Manifest) -> Manifest:
    """The Service for Serve (common/service.go, BuildServeService).

    Its selector is KubeRay's whatever is asked for. Its ports are those container ports of the *head* that are called
    "serve" or "serve-…" (isServingPort); a port of spec.serveService replaces one of the same name, others are dropped.
    """
    head = service["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    ports = [each for each in head.get("ports", []) if each["name"] == "serve" or each["name"].startswith("serve-")]
    asked = service["spec"].get("serveService", {})
    named = {each["name"]: each for each in asked.get("spec", {}).get("ports", [])}
    made = [named.get(each["name"], {"name": each["name"], "port": each["containerPort"]}) for each in ports]
    name = asked.get("metadata", {}).get("name", f"{service['metadata']['name']}-serve-svc")
    return {"metadata": {"name": name}, "spec": {"selector": {SERVING: "true"}, "ports": made}}


def selected(service: Manifest, among: list[Pod]) -> Iterator[Pod]:
    """The pods that a Service sends calls to, if they are ready."""
    wanted = service["spec"]["selector"].items()
    return (pod for pod in among if wanted <= pod.labels.items())


def cluster_hash(service: Manifest) -> str:
    """What a change of starts a second cluster (utils/util.go, GenerateHashWithoutReplicasAndWorkersToDelete).

    The cluster's whole spec but replicas, limits of replicas, workers to delete and the upgrade strategy; v1.7.0 leaves
    out tolerations and scheduling gates as well, which is not counted on here.
    """
    spec = copy.deepcopy(service["spec"]["rayClusterConfig"])
    for group in spec["workerGroupSpecs"]:
        for field in ("replicas", "minReplicas", "maxReplicas"):
            group.pop(field, None)
        group.get("scaleStrategy", {}).pop("workersToDelete", None)
    spec.pop("upgradeStrategy", None)
    return hashlib.sha1(json.dumps(spec, sort_keys=True).encode()).hexdigest()


def refusals(service: Manifest) -> list[str]:
    """What the operator refuses (utils/validation.go, ValidateRayServiceMetadata and ValidateRayClusterSpec)."""
    name, cluster = service["metadata"]["name"], service["spec"]["rayClusterConfig"]
    found = []
    if len(name) > LONGEST_NAME or not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name):
        found.append(f"{name} is no label of at most {LONGEST_NAME} characters that begins with a letter")
    head = pods(service)[0]
    variables = {each["name"] for each in head.ray.get("env", [])}
    if "gcsFaultToleranceOptions" in cluster:
        found += [f"{each} is set for the head" for each in sorted(variables & OF_FAULT_TOLERANCE)]
    if cluster.get("enableInTreeAutoscaling"):
        found += [f"{pod.group} is restarted" for pod in pods(service) if pod.spec.get("restartPolicy") != "Never"]
        if "autoscalerOptions" in cluster and "RAY_enable_autoscaler_v2" in variables:
            found.append("the version of the autoscaler is set twice")
    for group in cluster["workerGroupSpecs"]:
        if not 0 <= group["minReplicas"] <= group["maxReplicas"]:
            found.append(f"{group['groupName']} has fewer pods at most than at least")
    return found


def cleanup_pod(service: Manifest) -> Pod:
    """The pod of the Job that clears Ray's keys from its Redis after a deletion (raycluster_controller.go,
    buildRedisCleanupJob): the head's, with all its labels but the kind of node, and its first container alone.

    Its account and Secrets are the head's, so they must outlive the release.
    """
    head = pods(service)[0]
    spec = {**head.spec, "containers": head.spec["containers"][:1], "restartPolicy": "Never"}
    return Pod("redis-cleanup", {**head.labels, NODE_TYPE: "redis-cleanup"}, spec)


def ways_out(pod: Pod, manifests: list[Manifest]) -> list[Manifest] | None:
    """The egress rules of all policies that select the pod; None where none does, and all is open to it.

    As Kubernetes adds them up (networking.k8s.io/v1, NetworkPolicySpec): what one of them allows is allowed.
    """
    policies = [each["spec"] for each in manifests if each["kind"] == "NetworkPolicy" and _selects(each["spec"], pod)]
    policies = [each for each in policies if "Egress" in each["policyTypes"]]
    return [rule for each in policies for rule in each["egress"]] if policies else None


def _selects(policy: Manifest, pod: Pod) -> bool:
    selector = policy["podSelector"]
    labelled = selector.get("matchLabels", {}).items() <= pod.labels.items()
    return labelled and all(
        {"In": pod.labels.get(each["key"]) in each["values"]}[each["operator"]]
        for each in selector.get("matchExpressions", [])
    )
