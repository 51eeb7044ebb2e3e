"""Situations in which each alert fires, and close ones in which it must not.

Values are promtool's: "0+5x30" is a counter that grows by 5 each minute, "_" a missing sample, "stale" a scrape that
failed. Every case is put to two releases at once (see test_rules.py), so its series name neither namespace nor release.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Case:
    """What Prometheus has scraped of a release by `at`, and whether the alert fires then, with these labels.

    `severities` are those of the rules that fire, where an alert has more than one. `other` is what has been scraped of
    another release meanwhile; it has the series of the first case in which the alert is quiet when that is None.
    """

    alert: str
    fires: bool
    at: str
    series: Mapping[str, str]
    labels: Mapping[str, str] = field(default_factory=dict)
    severities: tuple[str, ...] = ()
    other: Mapping[str, str] | None = None
    interval: str = "1m"


GENERATE = 'method="GenerationService/Generate"'
SUBMIT = 'method="FeedbackService/SubmitFeedback"'
_NAMED = {"method": "GenerationService/Generate"}


def handled(code: str, method: str = GENERATE) -> str:
    return f'papa_rpc_handled_total{{{method},code="{code}"}}'


def _updates(outcome: str) -> str:
    return f'papa_updates_total{{outcome="{outcome}"}}'


def _latencies(name: str, labels: str, fast: str, slow: str) -> dict[str, str]:
    """A histogram of which `fast` observations a minute take up to a second, and `slow` more up to a minute."""
    label = f"{labels}," if labels else ""
    whole = str(int(fast) + int(slow))
    return {
        f'{name}_bucket{{{label}le="1"}}': f"0+{fast}x60",
        f'{name}_bucket{{{label}le="60"}}': f"0+{whole}x60",
        f'{name}_bucket{{{label}le="+Inf"}}': f"0+{whole}x60",
    }


DAY = 86_400
_EXPIRY = "papa_gateway_certificate_expiry_timestamp_seconds"


def _redis(used: int) -> dict[str, str]:
    return {"papa_redis_memory_used_bytes": f"{used}x30", "papa_redis_memory_limit_bytes": "100x30"}


CASES = (
    Case("PapaTargetDown", True, "15m", {'up{job="papa",instance="a"}': "0x20"}, {"job": "papa", "instance": "a"}),
    Case("PapaTargetDown", False, "15m", {'up{job="papa",instance="a"}': "1 0 0 0 1x20", 'up{job="x"}': "0x20"}),
    # A pod that pulls its image has an address and does not answer.
    Case(
        "PapaTargetDown",
        False,
        "14m",
        {
            'up{job="papa",instance="a",pod="papa-abcde-generator-worker-1"}': "_ _ 0x20",
            'kube_pod_status_phase{pod="papa-abcde-generator-worker-1",phase="Pending"}': "1x20",
        },
    ),
    Case(
        "PapaTargetDown",
        False,
        "14m",
        {
            'up{job="papa",instance="a",pod="papa-gateway-1"}': "0x20",
            'kube_pod_status_ready{pod="papa-gateway-1",condition="true"}': "0x20",
        },
    ),
    Case(
        "PapaTargetDown",
        True,
        "14m",
        {
            'up{job="papa",instance="a",pod="papa-gateway-1"}': "0x20",
            'kube_pod_status_ready{pod="papa-gateway-1",condition="true"}': "1x20",
            'kube_pod_status_phase{pod="papa-gateway-1",phase="Pending"}': "0x20",
        },
        {"job": "papa", "instance": "a", "pod": "papa-gateway-1"},
    ),
    # All gateways of one release are gone while another one lives.
    Case("PapaGatewayAbsent", True, "25m", {'papa_build_info{version="1"}': "1x10 _x20"}),
    Case("PapaGatewayAbsent", False, "8m", {'papa_build_info{version="1"}': "1x20"}),
    # One of two is gone.
    Case(
        "PapaGatewayAbsent",
        False,
        "20m",
        {
            'papa_build_info{version="1",pod="a"}': "1x10 _x20",
            'papa_build_info{version="1",pod="b"}': "1x30",
        },
    ),
    # Low traffic, or none at all, and every generator gone.
    Case(
        "PapaGeneratorAbsent",
        True,
        "30m",
        {
            "papa_build_info": "1x40",
            'papa_engines_running{pod="a"}': "1x10 _x30",
            'papa_engines_running{pod="b"}': "1x10 0x30",
            'papa_engines_running{pod="gateway"}': "0x40",
        },
    ),
    Case(
        "PapaGeneratorAbsent",
        False,
        "20m",
        {
            "papa_build_info": "1x30",
            'papa_engines_running{pod="a"}': "1x10 _x20",
            'papa_engines_running{pod="b"}': "1x30",
        },
    ),
    # A new installation pulls its images for twenty minutes; after forty something is wrong.
    Case("PapaGeneratorAbsent", False, "20m", {"papa_build_info": "1x30", "papa_engines_running": "0x30"}),
    Case("PapaGeneratorAbsent", True, "45m", {"papa_build_info": "1x50", "papa_engines_running": "0x50"}),
    Case("PapaErrorRateHigh", True, "20m", {handled("OK"): "0+90x30", handled("INTERNAL"): "0+10x30"}, _NAMED),
    # Everything fails at low traffic while another release is soaked with calls that end well.
    Case(
        "PapaErrorRateHigh",
        True,
        "25m",
        {handled("UNAVAILABLE"): "0+1x30"},
        _NAMED,
        other={handled("OK"): "0+6000x30"},
    ),
    # One failure of a quiet night.
    Case("PapaErrorRateHigh", False, "25m", {handled("UNAVAILABLE"): "0 0 0 0 0 1x30", handled("OK"): "0+1x30"}),
    # What callers got wrong, refusals for want of room, and watches that ran out of time are no errors of the service.
    Case(
        "PapaErrorRateHigh",
        False,
        "20m",
        {
            handled("OK"): "0+90x30",
            handled("INVALID_ARGUMENT"): "0+10x30",
            handled("RESOURCE_EXHAUSTED"): "0+10x30",
            handled("DEADLINE_EXCEEDED", 'method="UserService/WatchUser"'): "0+90x30",
            handled("INTERNAL"): "0+1x30",
        },
    ),
    Case("PapaGenerateSlow", True, "30m", _latencies("papa_rpc_duration_seconds", GENERATE, "50", "50"), _NAMED),
    Case("PapaGenerateSlow", False, "30m", _latencies("papa_rpc_duration_seconds", GENERATE, "99", "1")),
    Case("PapaGeneratorOverloaded", True, "20m", {handled("OK"): "0+90x30", handled("RESOURCE_EXHAUSTED"): "0+10x30"}),
    Case(
        "PapaGeneratorOverloaded",
        False,
        "20m",
        {
            handled("OK"): "0+99x30",
            handled("RESOURCE_EXHAUSTED"): "0+1x30",
            handled("RESOURCE_EXHAUSTED", SUBMIT): "0+90x30",
        },
    ),
    Case(
        "PapaGeneratorStalled",
        True,
        "20m",
        {"papa_engine_queued_rows": "5x30", "papa_engine_step_duration_seconds_count": "100x30"},
    ),
    # One of two engines hangs, with rows in its batch and none in its queue.
    Case(
        "PapaGeneratorStalled",
        True,
        "20m",
        {
            'papa_engine_queued_rows{pod="a",instance="1"}': "0x30",
            'papa_engine_running_rows{pod="a",instance="1"}': "8x30",
            'papa_engine_step_duration_seconds_count{pod="a",instance="1"}': "0+10x5 50x30",
            'papa_engine_queued_rows{pod="b",instance="2"}': "5x30",
            'papa_engine_running_rows{pod="b",instance="2"}': "8x30",
            'papa_engine_step_duration_seconds_count{pod="b",instance="2"}': "0+600x30",
        },
        {"pod": "a", "instance": "1"},
    ),
    # One of two engines of one machine hangs; the other one's steps are counted with it.
    Case(
        "PapaGeneratorStalled",
        True,
        "20m",
        {
            'papa_engine_step_started_timestamp_seconds{instance="1",pid="7"}': "0 60x30",
            'papa_engine_step_started_timestamp_seconds{instance="1",pid="8"}': "0+60x30",
            'papa_engine_step_started_timestamp_seconds{instance="1",pid="9"}': "0x30",
            'papa_engine_running_rows{instance="1"}': "16x30",
            'papa_engine_step_duration_seconds_count{instance="1"}': "0+600x30",
        },
        {"instance": "1"},
    ),
    Case(
        "PapaGeneratorStalled",
        False,
        "20m",
        {
            "papa_engine_queued_rows": "5x30",
            "papa_engine_step_duration_seconds_count": "0+10x30",
            'papa_engine_step_started_timestamp_seconds{pid="8"}': "0+60x30",
        },
    ),
    Case(
        "PapaFeedbackRefused",
        True,
        "20m",
        {'papa_feedback_events_total{outcome="STORAGE_UNAVAILABLE"}': "0+3x30"},
        {"outcome": "STORAGE_UNAVAILABLE"},
    ),
    Case(
        "PapaFeedbackRefused",
        False,
        "20m",
        {
            'papa_feedback_events_total{outcome="ITEM_NOT_FOUND"}': "0+3x30",
            'papa_feedback_events_total{outcome="BACKLOG_FULL"}': "7x30",
        },
    ),
    Case("PapaLoopSlow", True, "40m", _latencies("papa_feedback_to_served_seconds", "", "50", "50")),
    Case("PapaLoopSlow", False, "40m", _latencies("papa_feedback_to_served_seconds", "", "99", "1")),
    # Users who come back late see late what was learnt in time.
    Case(
        "PapaLoopSlow",
        False,
        "40m",
        _latencies("papa_feedback_to_served_seconds", "", "50", "50")
        | _latencies("papa_feedback_to_commit_seconds", "", "99", "1"),
    ),
    Case("PapaFeedbackStuck", True, "15m", {"papa_feedback_oldest_age_seconds": "0+60x30"}),
    Case("PapaFeedbackStuck", False, "15m", {"papa_feedback_oldest_age_seconds": "0+20x30"}),
    Case("PapaBacklogGrowing", True, "45m", {"papa_feedback_backlog_events": "0+500x60"}),
    Case("PapaBacklogGrowing", False, "45m", {"papa_feedback_backlog_events": "20000-100x60"}),
    Case("PapaNobodyTrains", True, "15m", {"papa_build_info": "1x30", "papa_partitions_owned": "64 0x30"}),
    Case(
        "PapaNobodyTrains",
        False,
        "10m",
        {
            "papa_build_info": "1x30",
            'papa_partitions_owned{instance="a"}': "0x30",
            'papa_partitions_owned{instance="b"}': "64x30",
        },
    ),
    # A new installation pulls its images for twenty minutes; after forty something is wrong.
    Case("PapaNobodyTrains", False, "20m", {"papa_build_info": "1x30", "papa_partitions_owned": "0x30"}),
    Case("PapaNobodyTrains", True, "45m", {"papa_build_info": "1x50", "papa_partitions_owned": "0x50"}),
    Case(
        "PapaDeadLetters",
        True,
        "10m",
        {'papa_feedback_dead_letters_total{reason="attempts"}': "0 0 1x30"},
        {"reason": "attempts"},
        other={'papa_feedback_dead_letters_total{reason="attempts"}': "0x30"},
    ),
    Case(
        "PapaDeadLetters",
        True,
        "10m",
        {'papa_feedback_dead_letters_total{reason="sample"}': "_ _ 1x30"},
        {"reason": "sample"},
        other={'papa_feedback_dead_letters_total{reason="sample"}': "0x30"},
    ),
    Case("PapaDeadLetters", False, "90m", {'papa_feedback_dead_letters_total{reason="attempts"}': "1x120"}),
    # An hour ago one scrape failed.
    Case("PapaDeadLetters", False, "80m", {'papa_feedback_dead_letters_total{reason="attempts"}': "4x19 stale 4x100"}),
    Case("PapaUpdatesFailing", True, "30m", {_updates("committed"): "0+9x40", _updates("failed"): "0+1x40"}),
    Case(
        "PapaUpdatesFailing",
        False,
        "30m",
        {_updates("committed"): "0+99x40", _updates("failed"): "0+1x40", _updates("fenced"): "0+9x40"},
    ),
    Case("PapaGateRefusals", True, "60m", {_updates("committed"): "0+7x70", _updates("refused"): "0+3x70"}),
    Case("PapaGateRefusals", False, "60m", {_updates("committed"): "0+9x70", _updates("refused"): "0+1x70"}),
    Case("PapaUpdatesFenced", True, "20m", {_updates("fenced"): "0+2x30"}),
    Case("PapaUpdatesFenced", False, "20m", {_updates("fenced"): "0 0 0 3x30"}),
    Case(
        "PapaAdapterRefused",
        True,
        "10m",
        {'papa_adapter_refused_total{reason="sha256"}': "0 0 1x30"},
        {"reason": "sha256"},
        other={'papa_adapter_refused_total{reason="sha256"}': "0x30"},
    ),
    Case(
        "PapaAdapterRefused",
        True,
        "10m",
        {'papa_adapter_refused_total{reason="finite"}': "_ _ 1x30"},
        {"reason": "finite"},
        other={'papa_adapter_refused_total{reason="finite"}': "0x30"},
    ),
    Case("PapaAdapterRefused", False, "40m", {'papa_adapter_refused_total{reason="sha256"}': "4x60"}),
    # A quarter of an hour ago one scrape failed.
    Case("PapaAdapterRefused", False, "35m", {'papa_adapter_refused_total{reason="sha256"}': "4x19 stale 4x60"}),
    Case(
        "PapaAdapterCacheMisses",
        True,
        "60m",
        {'papa_adapter_lookups_total{tier="store"}': "0+600x70", 'papa_adapter_lookups_total{tier="host"}': "0+300x70"},
        {"tier": "store"},
    ),
    # Many misses among few look-ups: a quiet night.
    Case(
        "PapaAdapterCacheMisses",
        False,
        "60m",
        {'papa_adapter_lookups_total{tier="store"}': "0+6x70", 'papa_adapter_lookups_total{tier="host"}': "0+3x70"},
    ),
    Case("PapaRedisNearlyFull", True, "15m", _redis(90), severities=("warning",)),
    Case("PapaRedisNearlyFull", True, "15m", _redis(97), severities=("warning", "critical")),
    Case("PapaRedisNearlyFull", False, "15m", _redis(80)),
    # Processes that do not measure Redis serve zeros.
    Case(
        "PapaRedisNearlyFull",
        False,
        "15m",
        {
            'papa_redis_memory_used_bytes{pod="trainer"}': "0x30",
            'papa_redis_memory_limit_bytes{pod="trainer"}': "0x30",
        },
    ),
    Case("PapaRedisPersistenceFailing", True, "10m", {"papa_redis_persistence_failing": "0 1x30"}),
    Case("PapaRedisPersistenceFailing", False, "10m", {"papa_redis_persistence_failing": "0x4 1 0x30"}),
    Case("PapaCertificateExpires", True, "90m", {_EXPIRY: f"{10 * DAY}x100"}, severities=("warning",)),
    Case("PapaCertificateExpires", True, "90m", {_EXPIRY: f"{DAY}x100"}, severities=("warning", "critical")),
    Case("PapaCertificateExpires", False, "90m", {_EXPIRY: f"{30 * DAY}x100"}),
    Case("PapaCertificateExpires", False, "90m", {_EXPIRY: "0x100"}),  # a gateway without TLS
)
