"""The chart as Helm renders it, and the schemas that its manifests are held against."""

from __future__ import annotations

import functools
import json
import pickle
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml
from helm_python.chart import Chart
from jsonschema import Draft202012Validator

from tests import absent

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "papa"
EXAMPLES = sorted(path.stem for path in (CHART / "examples").glob("*.yaml"))
CRDS = absent.SHARED / "crds"
KUBERNETES = ("1.30", "1.37")
"""The oldest that Chart.yaml allows, and the newest known."""

kubernetes_validate.utils.schema_contents = functools.cache(kubernetes_validate.utils.schema_contents)
# It reads megabytes of definitions for every manifest otherwise, which is two thirds of the time here.

Manifest = dict[str, Any]


def example(name: str) -> Manifest:
    return yaml.load((CHART / "examples" / f"{name}.yaml").read_text(), yaml.CSafeLoader)


def merged(values: Manifest, more: Manifest) -> Manifest:
    """Merges values as Helm merges a second file over a first."""
    result = dict(values)
    for name, value in more.items():
        both = isinstance(value, dict) and isinstance(result.get(name), dict)
        result[name] = merged(result[name], value) if both else value
    return result


def render(values: Manifest, release: str = "demo", namespace: str = "papa") -> list[Manifest]:
    """Every manifest, in no order; raises Helm's errors."""
    manifests: list[Manifest] = pickle.loads(_rendered(json.dumps(values), release, namespace))
    return manifests


@functools.lru_cache(maxsize=256)
def _rendered(values: str, release: str, namespace: str) -> bytes:
    """The manifests, pickled: many tests look at the same ones, and some change theirs."""
    with Chart.load(CHART) as chart:
        rendered = chart.render(json.loads(values), name=release, namespace=namespace)
    texts = (text for path, text in rendered.items() if path.endswith(".yaml"))
    return pickle.dumps([each for text in texts for each in yaml.load_all(text, yaml.CSafeLoader) if each])


def notes(values: Manifest, release: str = "demo", upgrade: bool = False) -> str:
    """What Helm prints after an installation or an upgrade."""
    with Chart.load(CHART) as chart:
        rendered = chart.render(values, name=release, namespace="papa", is_upgrade=upgrade, is_install=not upgrade)
    return rendered["papa/templates/NOTES.txt"]


def only(manifests: list[Manifest], kind: str, suffix: str = "") -> Manifest:
    """The one of that kind whose name ends so."""
    (found,) = [each for each in manifests if each["kind"] == kind and each["metadata"]["name"].endswith(suffix)]
    return found


def settings_in(manifests: list[Manifest]) -> dict[str, str]:
    """The PAPA_* variables of a gateway's pod: those of all pods."""
    (found,) = [
        each["data"]
        for each in manifests
        if each["kind"] == "ConfigMap" and "PAPA_GATEWAY__GENERATOR" in (each.get("data") or {})
    ]
    return found


def pod_specs(manifests: list[Manifest]) -> dict[str, Manifest]:
    """The pod specifications by a name that a person understands."""
    specs = {}
    for each in manifests:
        spec, name = each.get("spec", {}), each["metadata"]["name"]
        match each["kind"]:
            case "Pod":
                specs[name] = spec
            case "Deployment" | "StatefulSet":
                specs[name] = spec["template"]["spec"]
            case "CronJob":
                specs[name] = spec["jobTemplate"]["spec"]["template"]["spec"]
            case "RayService":
                cluster = spec["rayClusterConfig"]
                specs[f"{name} head"] = cluster["headGroupSpec"]["template"]["spec"]
                for group in cluster["workerGroupSpecs"]:
                    specs[f"{name} {group['groupName']}"] = group["template"]["spec"]
    return specs


def check(manifest: Manifest) -> None:
    """Holds a manifest against the schema of its kind, once; raises when it does not fit."""
    _check(json.dumps(manifest, sort_keys=True))


@functools.cache
def _check(text: str) -> None:
    manifest = json.loads(text)
    name = f"{manifest['kind']} {manifest['metadata']['name']}"
    if manifest["kind"] in CUSTOM:
        errors = sorted(_validator(manifest["kind"]).iter_errors(manifest), key=str)
        assert not errors, f"{name}: {errors[0].json_path}: {errors[0].message}"
        return
    if manifest["kind"] == "GRPCRoute":
        assert manifest["spec"]["parentRefs"] and manifest["spec"]["rules"]
        return
    if manifest["kind"] == "BackendTLSPolicy":
        assert manifest["spec"]["targetRefs"] and manifest["spec"]["validation"]["hostname"]
        return
    for version in KUBERNETES:
        kubernetes_validate.validate(manifest, version, strict=True)


CUSTOM = {
    "RayService": "ray.io_rayservices.yaml",
    "ServiceMonitor": "monitoring.coreos.com_servicemonitors.yaml",
    "PodMonitor": "monitoring.coreos.com_podmonitors.yaml",
    "PrometheusRule": "monitoring.coreos.com_prometheusrules.yaml",
}


def need_custom_schemas() -> None:
    if not CRDS.is_dir():
        absent.skip("the schemas of custom resources are not here", "PAPA_SHARED=FOLDER make test (crds)")


@functools.cache
def _validator(kind: str) -> Draft202012Validator:
    definition = yaml.load((CRDS / CUSTOM[kind]).read_text(), yaml.CSafeLoader)
    (schema,) = [each["schema"] for each in definition["spec"]["versions"] if each["name"] == "v1"]
    return Draft202012Validator(_closed(schema["openAPIV3Schema"]))


def _closed(schema: Any) -> Any:
    """A server would drop fields that it does not know without a word; here they are errors."""
    if isinstance(schema, list):
        return [_closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: _closed(value) for name, value in schema.items()}
    if "x-kubernetes-int-or-string" in schema:
        closed.pop("type", None)
    has_fields = isinstance(schema.get("properties"), dict) and schema.get("type") == "object"
    if has_fields and "additionalProperties" not in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        closed["additionalProperties"] = False
    # Every object may be labelled; the definitions leave that to the server.
    if schema.get("type") == "object" and "properties" not in schema and "additionalProperties" not in schema:
        closed["additionalProperties"] = True
    return closed
