"""Values that switch something on or off, to be laid over an example."""

from __future__ import annotations

from typing import Any

TOGGLES: dict[str, dict[str, Any]] = {
    "no autoscaling": {"gateway": {"autoscaling": {"enabled": False}}, "ray": {"autoscaler": {"enabled": False}}},
    "no network policy": {"networkPolicy": {"enabled": False}},
    "no accounts": {"serviceAccount": {"create": False}},
    "ingress": {"gateway": {"ingress": {"enabled": True, "host": "papa.example.com", "tlsSecret": "papa-tls"}}},
    "object store": {"revisions": {"objectStore": {"url": "s3://bucket/papa", "existingSecret": "papa-s3"}}},
    "own volume": {"revisions": {"existingClaim": "adapters"}, "backbone": {"existingClaim": "backbones"}},
    "monitoring": {
        "metrics": {"monitors": {"enabled": True}, "rules": {"enabled": True}, "dashboards": {"enabled": True}}
    },
    "placement": {
        "generator": {"nodeSelector": {"pool": "a"}, "priorityClassName": "high", "runtimeClassName": "nvidia"},
        "gateway": {"tolerations": [{"key": "a", "operator": "Exists"}], "topologySpread": False},
    },
    "names": {"fullnameOverride": "recommender", "commonLabels": {"team": "shop"}, "image": {"pullSecrets": ["a"]}},
    "environment": {"extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}]},
    "tracing": {"tracing": {"enabled": True, "endpoint": "http://collector:4317", "existingSecret": "s"}},
    "everything placed": {
        "nodeSelector": {"pool": "papa"},
        "tolerations": [{"key": "papa", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
        "priorityClassName": "service",
        "podLabels": {"team": "shop"},
    },
    "more of the operator's": {
        "extraVolumes": [{"name": "more", "emptyDir": {}}],
        "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
        "extraObjects": [
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "data": {"of": "{{ .Release.Name }}"},
                "metadata": {"name": "demo-papa-more", "labels": {"app.kubernetes.io/instance": "{{ .Release.Name }}"}},
            }
        ],
        "trustedCa": {"existingSecret": "authorities"},
        "backbone": {"hubClaim": "hub"},
    },
    "IPv6": {"service": {"listen": "::", "ipFamilyPolicy": "PreferDualStack"}},
    "load balancer": {
        "gateway": {
            "service": {
                "type": "LoadBalancer",
                "loadBalancerSourceRanges": ["10.0.0.0/8"],
                "externalTrafficPolicy": "Local",
            },
            "autoscaling": {
                "metrics": [
                    {"type": "Pods", "pods": {"metric": {"name": "calls"}, "target": {"type": "Value", "value": "9"}}}
                ],
                "behavior": {"scaleUp": {"stabilizationWindowSeconds": 30}},
            },
        }
    },
    "no auth": {"ray": {"auth": {"enabled": False}}},
    "route": {"gateway": {"route": {"enabled": True, "parentRefs": [{"name": "public"}], "hostnames": ["a.example"]}}},
    "external redis": {
        "valkey": {"enabled": False},
        "redis": {"host": "likes", "existingSecret": "likes", "tls": {"caSecret": "ca"}},
        "gcsRedis": {"host": "ray", "existingSecret": "ray", "tls": {"caSecret": "ca"}},
    },
    "gpus": {
        "generator": {"device": "cuda", "gpus": 2, "autoscaling": {"minReplicas": 2, "maxReplicas": 9}},
        "trainer": {"device": "cuda", "autoscaling": {"minActors": 2, "maxActors": 5}},
    },
    "tls and tokens": {
        "gateway": {
            "tls": {"existingSecret": "tls", "clientCaSecret": "callers"},
            "route": {"backendTls": {"hostname": "papa.example.com"}},
            "auth": {"existingSecret": "keys"},
            "smoke": {"tokenSecret": "token", "caSecret": "tls", "certificateSecret": "caller"},
            "podDisruptionBudget": {"enabled": False},
        }
    },
}
