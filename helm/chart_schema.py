"""values.schema.json: shaped like values.yaml, limited by the table below; `config` is the settings' own schema."""

from __future__ import annotations

import copy
from typing import Any

from papa_serving.settings import Settings

Schema = dict[str, Any]

CHART_DECIDES = {
    "": ("data_dir", "backbone", "client", "metrics", "ray"),
    "redis": ("url", "password", "password_file", "prefix"),
    "catalogue": ("password",),
    "store": ("path", "url", "credentials"),
    "gateway": ("host", "port", "health_port", "generator", "drain_seconds", "notice_seconds", "tls"),
    "auth": ("keys_file",),
    "generator": ("device", "threads", "replicas", "max_replicas", "drain_seconds", "insecure", "token", "token_file"),
    "trainer": ("device", "threads", "actors", "autoscaling"),
    "tracing": ("enabled", "endpoint", "ca", "headers", "headers_file"),
}
"""Settings that other values set, by section; `config` refuses them."""

_NAME = {"type": "string", "maxLength": 253, "pattern": "^([a-z0-9]([a-z0-9.-]*[a-z0-9])?)?$"}
_DIGEST = {"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"}
_TAG = {"type": "string", "pattern": "^([A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?$", "not": {"const": "latest"}}
_PORT = {"type": "integer", "minimum": 1, "maximum": 65535}
_SIZE = {"type": "string", "pattern": "^[1-9][0-9]*(\\.[0-9]+)?(Ki|Mi|Gi|Ti|Pi|k|M|G|T|P)?$"}
_COUNT = {"type": "integer", "minimum": 1}
_SECONDS = {"type": "integer", "minimum": 0, "maximum": 3600}
_DEVICE = {"enum": ["cpu", "cuda"]}
_TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
_VARIABLES = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["name"],
        "properties": {"name": {"type": "string", "minLength": 1}, "value": {"type": "string"}},
    },
}
_MOUNTS = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["name", "mountPath"],
        "properties": {
            "name": {"type": "string", "minLength": 1},
            "mountPath": {"type": "string", "pattern": "^/"},
        },
    },
}
_VOLUMES = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["name"],
        "properties": {"name": {"type": "string", "minLength": 1}},
    },
}
_RESOURCES = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        kind: {"type": "object", "additionalProperties": {"type": ["string", "integer", "number"]}}
        for kind in ("requests", "limits")
    },
}

LIMITS: dict[str, Schema] = {
    "image.pullPolicy": {"enum": ["Always", "IfNotPresent", "Never"]},
    "image.pullSecrets": {"type": "array", "items": {"type": "string", "minLength": 1}},
    "*.tag": _TAG,
    "*.digest": _DIGEST,
    "*.repository": {"type": "string", "minLength": 1, "pattern": "^[^:@]+$"},
    "*.port": _PORT,
    "*.host": _NAME,
    "*.existingSecret": _NAME,
    "*.caSecret": _NAME,
    "*.clientCaSecret": _NAME,
    "*.tokenSecret": _NAME,
    "*.certificateSecret": _NAME,
    "*.existingClaim": _NAME,
    "*.storageClass": _NAME,
    "*.priorityClassName": _NAME,
    "*.runtimeClassName": _NAME,
    "*.size": _SIZE,
    "*.resources": _RESOURCES,
    "*.drainSeconds": _SECONDS,
    "*.noticeSeconds": _SECONDS,
    "*.minReplicas": _COUNT,
    "*.maxReplicas": _COUNT,
    "*.maxUnavailable": {"type": "integer", "minimum": 0},
    "*.device": _DEVICE,
    "*.annotations": _TEXTS,
    "*.podAnnotations": _TEXTS,
    "*.podLabels": _TEXTS,
    "*.extraEnv": _VARIABLES,
    "podLabels": _TEXTS,
    "commonLabels": _TEXTS,
    "extraEnv": _VARIABLES,
    "extraVolumes": _VOLUMES,
    "extraVolumeMounts": _MOUNTS,
    "nodeSelector": _TEXTS,
    "*.nodeSelector": _TEXTS,
    "*.threads": _COUNT,
    "backbone.name": {"type": "string", "minLength": 1},
    "redis.database": {"type": "integer", "minimum": 0},
    "revisions.accessModes": {
        "type": "array",
        "minItems": 1,
        "items": {"enum": ["ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"]},
    },
    "revisions.objectStore.url": {"type": "string", "pattern": "^((s3|gs|az)://[^ ?]+)?$"},
    "revisions.objectStore.endpoint": {"type": "string", "pattern": "^(https?://[^ /]+)?$"},
    "revisions.check.schedule": {"type": "string", "pattern": "^(\\S+( \\S+){4})?$"},
    "*.hubClaim": _NAME,
    "*.caConfigMap": _NAME,
    "redis.prefix": {"type": "string", "pattern": "^[a-z0-9_-]{0,32}$"},
    "gateway.replicas": _COUNT,
    "gateway.autoscaling.behavior": {"type": "object"},
    "gateway.service.externalTrafficPolicy": {"enum": ["", "Cluster", "Local"]},
    "gateway.ingress.controller": {"enum": ["", "nginx"]},
    "service.listen": {"enum": ["0.0.0.0", "::"]},  # noqa: S104 - the pods listen, behind policies
    "service.ipFamilyPolicy": {"enum": ["", "SingleStack", "PreferDualStack", "RequireDualStack"]},
    "scratch.tmp": _SIZE,
    "scratch.data": _SIZE,
    "gateway.autoscaling.targetCPUUtilizationPercentage": {"type": "integer", "minimum": 1, "maximum": 100},
    "gateway.service.type": {"enum": ["ClusterIP", "NodePort", "LoadBalancer"]},
    "gateway.service.appProtocol": {"type": "string", "minLength": 1},
    "gateway.route.parentRefs": {"type": "array", "items": {"type": "object", "required": ["name"]}},
    "gateway.route.hostnames": {"type": "array", "items": _NAME},
    "ray.version": {"type": "string", "pattern": "^[0-9]+\\.[0-9]+\\.[0-9]+$"},
    "ray.objectStoreMemory": {"type": "integer", "minimum": 78_643_200},
    "ray.upgrade.type": {"enum": ["NewCluster", "None"]},
    "ray.autoscaler.idleTimeoutSeconds": {"type": "integer", "minimum": 1},
    "ray.autoscaler.upscalingMode": {"enum": ["Default", "Aggressive", "Conservative"]},
    "generator.gpus": {"type": "integer", "minimum": 1},
    "generator.autoscaling.targetOngoingRequests": _COUNT,
    "*.upscaleDelaySeconds": _SECONDS,
    "*.downscaleDelaySeconds": _SECONDS,
    "*.minActors": _COUNT,
    "*.maxActors": _COUNT,
    "trainer.autoscaling.targetAgeSeconds": {"type": "number", "exclusiveMinimum": 0},
    "metrics.monitors.interval": {"type": "string", "pattern": "^[1-9][0-9]*(s|m)$"},
    "tracing.endpoint": {"type": "string", "pattern": "^(https?://[^/@:\\s]+:[0-9]+)?$"},
    "metrics.rules.runbookUrl": {"type": "string", "pattern": "^https?://.*[^/]$"},
}
"""Schemas by path, or by "*." and the last name; a value that is not listed has the type of its default."""

_ROUTE_NEEDS_PARENT = {
    "if": {"properties": {"enabled": {"const": True}}},
    "then": {"properties": {"parentRefs": {"minItems": 1}}},
}
_INGRESS_NEEDS_HOST = {
    "if": {"properties": {"enabled": {"const": True}}},
    "then": {"properties": {"host": {"minLength": 1}, "tlsSecret": {"minLength": 1}}},
}
_MUTUAL_TLS_NEEDS_TLS = {
    "if": {"properties": {"clientCaSecret": {"minLength": 1}}},
    "then": {"properties": {"existingSecret": {"minLength": 1}}},
}
_TRACES_GO_SOMEWHERE = {
    "if": {"properties": {"enabled": {"const": True}}},
    "then": {"properties": {"endpoint": {"minLength": 1}}},
}
_REDIS_IS_SOMEWHERE = {
    "if": {"properties": {"valkey": {"properties": {"enabled": {"const": False}}}}},
    "then": {"properties": {"redis": {"properties": {"host": {"minLength": 1}}}}},
}
_CLUSTER_IS_NO_SENTINELS = {
    "if": {"properties": {"cluster": {"properties": {"enabled": {"const": True}}}}},
    "then": {"properties": {"sentinel": {"properties": {"service": {"maxLength": 0}}}, "database": {"const": 0}}},
}


def values_schema(values: Schema) -> Schema:
    """The JSON schema of the chart's values, from its default values."""
    schema = _object("", values)
    schema["properties"]["config"] = settings_schema()
    schema["properties"]["global"] = {"type": "object"}
    schema["properties"]["redis"] |= _CLUSTER_IS_NO_SENTINELS
    schema["properties"]["tracing"] |= _TRACES_GO_SOMEWHERE
    schema["properties"]["gateway"]["properties"]["route"] |= _ROUTE_NEEDS_PARENT
    schema["properties"]["gateway"]["properties"]["ingress"] |= _INGRESS_NEEDS_HOST
    schema["properties"]["gateway"]["properties"]["tls"] |= _MUTUAL_TLS_NEEDS_TLS
    return (
        {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Values of papa"}
        | schema
        | (_REDIS_IS_SOMEWHERE)
    )


def _object(path: str, values: Schema) -> Schema:
    properties = {name: _field(f"{path}.{name}".lstrip("."), value) for name, value in values.items()}
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _field(path: str, value: object) -> Schema:
    limit = LIMITS.get(path) or LIMITS.get(f"*.{path.rpartition('.')[2]}")
    if limit is not None:
        return copy.deepcopy(limit)
    if path in FREE or value in ({}, []):
        return {"type": "object" if isinstance(value, dict) else "array"}
    if isinstance(value, dict):
        return _object(path, value)
    return {"type": {bool: "boolean", int: "integer", str: "string", list: "array"}[type(value)]}


FREE = ("podSecurityContext", "containerSecurityContext", "metrics.dashboards.labels")
"""Objects that Kubernetes defines; their defaults are examples of what may stand there."""


def settings_schema() -> Schema:
    """The schema of `config`: the settings without those in CHART_DECIDES and without secrets."""
    whole = Settings.model_json_schema()
    return _without_noise(_inlined(whole, whole["$defs"], ""))


def _inlined(schema: Schema, definitions: Schema, section: str) -> Schema:
    """The schema of one section with those of its subsections in place of references to them."""
    properties = {}
    for name, field in schema["properties"].items():
        if name in CHART_DECIDES.get(section, ()) or field.get("writeOnly"):
            continue
        reference = field.get("$ref")
        properties[name] = (
            _inlined(definitions[reference.split("/")[-1]], definitions, name)
            if reference
            else _resolved(field, definitions)
        )
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _resolved(value: Any, definitions: Schema) -> Any:
    """The value with definitions in place of references to them, as in a table of named records."""
    if isinstance(value, list):
        return [_resolved(each, definitions) for each in value]
    if not isinstance(value, dict):
        return value
    if reference := value.get("$ref"):
        return _without_noise(_resolved(definitions[reference.split("/")[-1]], definitions))
    return {name: _resolved(each, definitions) for name, each in value.items()}


def _without_noise(schema: Schema) -> Schema:
    """Defaults are those of the service, which `papa config show` prints; titles repeat names."""
    noise = {"title", "default"}
    return {
        key: {name: _without_noise(field) for name, field in value.items()} if key == "properties" else value
        for key, value in schema.items()
        if key not in noise
    }
