"""The fields of a RayService as KubeRay's own definitions have them, in an extract that needs no download.

kuberay_fields.json is made of ray-operator/config/crd/bases/ray.io_rayservices.yaml of ray-project/kuberay
(Apache-2.0), the oldest release that the chart supports and a newer one: names and types alone, and of pod templates
nothing, which Kubernetes defines. `python -m tests.helm.kuberay_fields` makes it anew from PAPA_SHARED/crds.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

from tests import absent

EXTRACT = Path(__file__).with_suffix(".json")
RELEASES = {"1.6.0": "kuberay-1.6.0", "1.7.0": ""}
"""Version → folder of its definitions below PAPA_SHARED/crds."""
OF_KUBERNETES = {
    "template", "resources", "env", "envFrom", "volumeMounts", "securityContext", "valueFrom", "metadata",
    "serveService", "headService",
}  # fmt: skip
"""Fields whose content Kubernetes defines."""
OF_THE_OPERATOR = {"status"}
"""Fields that nobody but the operator writes."""

Schema = dict[str, Any]


def definition(version: str) -> Schema:
    """The schema of RayService v1 in PAPA_SHARED."""
    path = absent.SHARED / "crds" / RELEASES[version] / "ray.io_rayservices.yaml"
    versions = yaml.load(path.read_text(), yaml.CSafeLoader)["spec"]["versions"]
    (schema,) = [each["schema"]["openAPIV3Schema"] for each in versions if each["name"] == "v1"]
    return dict(schema)


def fields(schema: Schema) -> Any:
    """An object as its fields, an array as a list of one, a choice as {"": choices}, everything else as its type."""
    if "enum" in schema:
        return {"": schema["enum"]}
    match schema.get("type"):
        case "object" if "properties" in schema:
            return {
                name: "any" if name in OF_KUBERNETES else fields(field)
                for name, field in schema["properties"].items()
                if name not in OF_THE_OPERATOR
            }
        case "array":
            return [fields(schema["items"])]
        case None | "object":
            return "any"
        case kind:
            return kind


def closed_schema(known: Any) -> Schema:
    """The JSON schema of an extract; a field that it does not have is an error."""
    if known == "any":
        return {}
    if isinstance(known, list):
        return {"type": "array", "items": closed_schema(known[0])}
    if isinstance(known, dict):
        if set(known) == {""}:
            return {"enum": known[""]}
        properties = {name: closed_schema(field) for name, field in known.items()}
        return {"type": "object", "properties": properties, "additionalProperties": False}
    return {"type": known}


def check(service: dict[str, Any], version: str) -> None:
    """Holds a RayService against what an operator of that version knows. Raises AssertionError."""
    known = json.loads(EXTRACT.read_text())[version]
    errors = sorted(Draft202012Validator(closed_schema(known)).iter_errors(service), key=str)
    assert not errors, f"{errors[0].json_path}: {errors[0].message}"


def extract() -> str:
    """What the file should hold."""
    return json.dumps({version: fields(definition(version)) for version in RELEASES}, indent=1) + "\n"


if __name__ == "__main__":
    EXTRACT.write_text(extract())
