"""Bad values are refused before anything reaches a cluster, with a message that names them."""

from __future__ import annotations

from typing import Any

import pytest
from helm_python.chart import Chart
from helm_python.errors import HelmError
from papa_serving.settings import RedisSettings, Settings
from papa_serving.store.redis_address import address_of

from tests.helm.rendering import CHART, example, merged, notes, only, pod_specs, render, settings_in


def refusal(more: dict[str, Any], base: str = "dev") -> str:
    with Chart.load(CHART) as chart, pytest.raises(HelmError) as refused:
        chart.validate_schema(merged(example(base), more))
    return str(refused.value)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"gatway": {}}, "gatway"),
        ({"gateway": {"replica": 3}}, "replica"),
        ({"gateway": {"replicas": 0}}, "/gateway/replicas"),
        ({"gateway": {"service": {"port": 70000}}}, "/gateway/service/port"),
        ({"gateway": {"service": {"type": "Loadbalancer"}}}, "/gateway/service/type"),
        ({"gateway": {"ingress": {"enabled": True}}}, "/gateway/ingress/host"),
        ({"gateway": {"route": {"enabled": True}}}, "/gateway/route/parentRefs"),
        ({"generator": {"device": "gpu"}}, "/generator/device"),
        ({"image": {"server": {"tag": "latest"}}}, "/image/server/tag"),
        ({"image": {"gateway": {"digest": "abc"}}}, "/image/gateway/digest"),
        ({"trainer": {"autoscaling": {"minActors": "two"}}}, "/trainer/autoscaling/minActors"),
        ({"trainer": {"autoscaling": {"targetAgeSeconds": 0}}}, "/trainer/autoscaling/targetAgeSeconds"),
        ({"config": {"trainer": {"autoscaling": {"max_actors": 3}}}}, "autoscaling"),
        ({"revisions": {"size": "20 GB"}}, "/revisions/size"),
        ({"revisions": {"objectStore": {"url": "ftp://h/x"}}}, "/revisions/objectStore/url"),
        ({"valkey": {"enabled": False}}, "/redis/host"),
        ({"tracing": {"enabled": True}}, "/tracing/endpoint"),
        ({"tracing": {"endpoint": "collector:4317"}}, "/tracing/endpoint"),
        ({"config": {"tracing": {"sample_ratio": 2}}}, "/config/tracing/sample_ratio"),
        ({"config": {"tracing": {"headers": "authorization=x"}}}, "headers"),
        ({"config": {"tracing": {"enabled": True}}}, "enabled"),
        ({"redis": {"cluster": {"enabled": True}, "database": 1}}, "/redis/database"),
        ({"redis": {"cluster": {"enabled": True}, "sentinel": {"service": "x"}}}, "/redis/sentinel/service"),
        ({"metrics": {"monitors": {"interval": "15"}}}, "/metrics/monitors/interval"),
        ({"config": {"trainer": {"min_label": 5}}}, "min_label"),
        ({"config": {"trainer": {"min_labels": 0}}}, "/config/trainer/min_labels"),
        ({"config": {"generator": {"dtype": "float8"}}}, "/config/generator/dtype"),
        ({"config": {"redis": {"url": "redis://elsewhere"}}}, "url"),
        ({"config": {"redis": {"password": "secret"}}}, "password"),
        ({"config": {"data_dir": "/tmp"}}, "data_dir"),
        ({"config": {"trainer": {"actors": 3}}}, "actors"),
    ],
)
def test_bad_values_are_refused_by_name(values, named):
    assert named in refusal(values)


@pytest.mark.parametrize(
    ("values", "url", "ports"),
    [
        ({}, "rediss://h:7/3?ssl_ca_certs=/etc/papa/redis-ca/ca.crt", {7}),
        (
            {"database": 0, "cluster": {"enabled": True}},
            "rediss+cluster://h:7?ssl_ca_certs=/etc/papa/redis-ca/ca.crt",
            {7},
        ),
        (
            {"username": "u", "sentinel": {"service": "likes", "serverPort": 8}},
            "rediss+sentinel://u@h:7/likes/3?ssl_ca_certs=/etc/papa/redis-ca/ca.crt",
            {7, 8},
        ),
    ],
)
def test_redis_is_reached_alone_in_a_cluster_or_through_sentinels(values, url, ports):
    tls = {"enabled": True, "caSecret": "authority"}
    redis = {"host": "h", "port": 7, "database": 3, "username": "", "tls": tls}
    manifests = render(merged(example("production"), {"redis": merged(redis, values)}))
    assert settings_in(manifests)["PAPA_REDIS__URL"] == url
    options = address_of(RedisSettings(url=url)).options
    assert options == {} or options["ssl_ca_certs"] == "/etc/papa/redis-ca/ca.crt"
    egress = only(manifests, "NetworkPolicy", "-gateway")["spec"]["egress"]
    assert ports <= {port["port"] for rule in egress for port in rule.get("ports", [])}


def test_an_object_store_takes_the_place_of_the_volume():
    there = {"url": "s3://bucket/papa", "endpoint": "http://minio:9000", "existingSecret": "papa-s3"}
    manifests = render(merged(example("production"), {"revisions": {"objectStore": there}}))
    settings = settings_in(manifests)
    assert settings["PAPA_STORE__URL"] == "s3://bucket/papa"
    assert (settings["AWS_ENDPOINT_URL"], settings["AWS_ALLOW_HTTP"]) == ("http://minio:9000", "true")
    assert "PAPA_STORE__PATH" not in settings
    assert "PersistentVolumeClaim" not in {each["kind"] for each in manifests}
    specs = pod_specs(manifests)
    assert "revisions" not in {volume["name"] for spec in specs.values() for volume in spec["volumes"]}
    for pod in ("demo-papa-gateway", "demo-papa generator", "demo-papa trainer"):
        assert {"name": "object-store", "secret": {"secretName": "papa-s3"}} in specs[pod]["volumes"], pod


def test_traces_reach_their_collector():
    manifests = render(example("production"))
    settings = settings_in(manifests)
    assert settings["PAPA_TRACING__ENDPOINT"] == "https://collector.example.com:4317"
    assert "PAPA_TRACING__HEADERS" not in settings
    for pod in ("demo-papa-gateway", "demo-papa generator", "demo-papa trainer"):
        container = pod_specs(manifests)[pod]["containers"][0]
        (headers,) = [each for each in container["env"] if each["name"] == "PAPA_TRACING__HEADERS_FILE"]
        assert headers["value"] == "/etc/papa/tracing/headers"
        (mount,) = [each for each in container["volumeMounts"] if each["name"] == "tracing-ca"]
        assert settings["PAPA_TRACING__CA"] == f"{mount['mountPath']}/ca.crt"
    for policy in ("-gateway", "-ray"):
        egress = only(manifests, "NetworkPolicy", policy)["spec"]["egress"]
        (rule,) = [each for each in egress if {"port": 4317, "protocol": "TCP"} in each.get("ports", [])]
        assert rule["to"] == [{"ipBlock": {"cidr": "10.20.4.0/24"}}]


def test_without_tracing_nothing_of_it_is_there():
    text = str(render(example("dev")))
    assert "TRACING" not in text and "tracing" not in text


def test_rendering_refuses_them_too():
    with pytest.raises(HelmError, match="gatway"):
        render(merged(example("dev"), {"gatway": {}}))


def test_every_setting_is_either_in_config_or_decided_by_the_chart():
    with Chart.load(CHART) as chart:
        offered = chart.schema["properties"]["config"]["properties"]
    with_objects = merged(example("dev"), {"revisions": {"objectStore": {"url": "s3://bucket"}}})
    values = (example("dev"), example("production"), with_objects)
    examples = [settings_in(render(each)) for each in values]
    environment = set().union(*examples)
    for section, field in Settings.model_fields.items():
        names = getattr(field.annotation, "model_fields", None)
        if names is None:
            assert f"PAPA_{section.upper()}" in environment or section in offered
            continue
        for name in names:
            decided = any(each.startswith(f"PAPA_{section.upper()}__{name.upper()}") for each in environment)
            secret = name.startswith(("password", "headers", "token", "credentials"))  # test_mounted_secrets.py
            # In the chart the engine always has a token.
            local = section in ("ray", "metrics", "client") or (section, name) == ("generator", "insecure")
            assert decided or secret or local or name in offered[section]["properties"], f"{section}.{name}"


def test_notes_warn_of_what_is_not_safe():
    assert "for trials" in notes(example("dev"))
    assert "head pod is lost" in notes(merged(example("production"), {"gcsRedis": {"host": ""}}))
    assert "can run code" in notes(merged(example("production"), {"networkPolicy": {"enabled": False}}))
    quiet = notes(example("production"))
    assert "WARNING" not in quiet and "NOTE" not in quiet
