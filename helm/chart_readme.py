"""README.md of the chart: what it needs, how it is installed, and a table of all values."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

HEAD = """# The papa chart

Installs the gateway (Deployment), generator and trainer (a RayService of KubeRay) and what belongs to them. It needs
Kubernetes 1.30 or newer, the KubeRay operator KUBERAY or newer (however installed), a volume that several pods can
write, and two Redis (or Valkey) servers, 6.2 or newer, unless it is a trial. Catalogues (docs/catalogue.md) need
Redis 8, which a trial's Valkey is not: name one in `config.catalogue.url`, and its port in `networkPolicy.extraEgress`.
docs/operations.md tells how to install, upgrade, back up and repair it; `examples/` holds values for a laptop, for
production and for GPUs.

Build the images for amd64 and for arm64 each on a machine of its kind; all of their packages have wheels for both.
Nodes of both kinds in one cluster need images of both in one manifest list, or a `nodeSelector` on kubernetes.io/arch.

KubeRay's `NewClusterWithIncrementalUpgrade` is not offered. It moves traffic by the weights of an HTTPRoute to the
`serve` port of each cluster, in HTTP/1.1 through Services of its own; the engine's calls are gRPC at another port and
would not move with them. It also saves no GPUs here: a worker group starts with as many pods as
`generator.autoscaling.minReplicas`, whatever share of the traffic the new cluster has. With `NewCluster` generators
of both clusters serve side by side, each from when it has loaded until it ends.

    helm install papa helm/papa --values helm/papa/examples/dev.yaml
    helm test papa

This page is generated from values.yaml (`make generated`).

## What starts a second Ray cluster

KubeRay compares a hash of the whole cluster's definition, including the pod templates, and starts a second cluster
with as many nodes and GPUs whenever it changes. The definition therefore holds only what Ray's pods need. Values that
this table does not list change in place: rates and limits of the gateway, its image and its resources, log levels,
destination and number of traces, authentication, alerts, the generators' defaults, thresholds of scaling. Ray's pods
read log levels and the collector's address when they start; to apply a change at once, delete the pods one by one.

| value | why it must |
|---|---|
"""

VALUES = """
## Values

| value | default | meaning |
|---|---|---|
"""

STARTS_A_CLUSTER = {
    "nameOverride fullnameOverride": "the names of everything change",
    "image.registry image.server": "the image of Ray's pods, whose sidecar `metrics` runs it too",
    "image.pullPolicy image.pullSecrets": "are part of the pods",
    "backbone": "all adapters belong to the backbone",
    "redis": "every replica and trainer connects to it at its start; the content of its Secrets may change in place",
    "gcsRedis": "the head stores its state there for the next head",
    "valkey.enabled valkey.existingSecret": (
        "puts other addresses and another Secret in the place of `redis` and `gcsRedis`"
    ),
    "revisions.objectStore revisions.existingClaim": "they decide the pods' volumes and credentials",
    "ray.version ray.objectStoreMemory ray.auth ray.head": "the head, and how Ray starts",
    "ray.autoscaler": (
        "KubeRay reads it from the cluster's definition, `idleTimeoutSeconds` and the container's resources too"
    ),
    "generator.token": "a variable of the generators; the content of the Secret may change in place",
    "generator.device generator.gpus generator.gpuResource generator.threads": "what the pods ask for",
    "generator.drainSeconds": "how long Kubernetes waits for a pod that ends",
    "generator.autoscaling.minReplicas generator.autoscaling.maxReplicas trainer.autoscaling.minActors "
    "trainer.autoscaling.maxActors": "KubeRay leaves the limits of running worker groups as they are",
    "generator.resources trainer.resources metrics.resources": "Kubernetes fixes them when a pod is made",
    "trainer.device trainer.gpuResource trainer.threads": "what the pods ask for",
    "generator.topologySpread generator.podAnnotations generator.podLabels generator.nodeSelector "
    "generator.tolerations "
    "generator.affinity generator.runtimeClassName generator.priorityClassName": ("their place and labels"),
    "trainer.topologySpread trainer.podAnnotations trainer.podLabels trainer.nodeSelector trainer.tolerations "
    "trainer.affinity trainer.runtimeClassName trainer.priorityClassName": "the same",
    "nodeSelector tolerations affinity priorityClassName podLabels": (
        "the same, where a component says nothing of its own"
    ),
    "tracing.enabled tracing.existingSecret tracing.headersKey tracing.caSecret tracing.caKey": (
        "variables and files of the pods; `tracing.endpoint` and `config.tracing` are not among them"
    ),
    "serviceAccount podSecurityContext containerSecurityContext scratch service.listen": "are part of the pods",
    "extraEnv extraVolumes extraVolumeMounts": "stand in the pods; `gateway.extraEnv` is for the gateway alone",
    "trustedCa": "what is mounted; the content of the Secret may change in place",
    "config": "but for the sections `gateway`, `playground`, `log` and `tracing`, and `generator.sampler`, `steps`, "
    "`exploration`, `teaching`, `overdraw` and `guidance`: replicas and trainers read their settings when they start",
}
"""Values by their paths, separated by spaces: why a change of them starts a second cluster."""

_KEY = re.compile(r"^( *)([A-Za-z0-9]+):")
_MEANING = re.compile(r"^ *# -- (.*)$")
_CONTINUED = re.compile(r"^ *# (?!-- )(.*)$")


def readme(text: str, values: dict[str, Any], kuberay: str) -> str:
    """The page, from values.yaml as text (for its comments) and as data (for the defaults); `kuberay` is the oldest
    operator that will do."""
    rows = (f"| `{path}` | `{_shown(_at(values, path))}` | {meaning} |" for path, meaning in meanings(text))
    starts = (f"| {_quoted(paths)} | {why} |" for paths, why in STARTS_A_CLUSTER.items())
    head = HEAD.replace("KUBERAY", kuberay)
    return head + "\n".join(starts) + "\n" + VALUES + "\n".join(rows) + "\n"


def _quoted(paths: str) -> str:
    return ", ".join(f"`{path}`" for path in paths.split())


def meanings(text: str) -> Iterator[tuple[str, str]]:
    """Path and meaning of each value that has a comment "# -- …", in order."""
    path: list[tuple[int, str]] = []
    meaning: list[str] = []
    for line in text.splitlines():
        if found := _MEANING.match(line):
            meaning = [found[1]]
        elif meaning and (found := _CONTINUED.match(line)):
            meaning.append(found[1])
        elif found := _KEY.match(line):
            depth = len(found[1])
            path = [each for each in path if each[0] < depth] + [(depth, found[2])]
            if meaning:
                yield ".".join(name for _, name in path), " ".join(meaning).replace("|", "\\|")
            meaning = []


def _at(values: dict[str, Any], path: str) -> object:
    place: Any = values
    for name in path.split("."):
        place = place[name]
    return place


def _shown(value: object) -> str:
    return json.dumps(value).replace("|", "\\|")
