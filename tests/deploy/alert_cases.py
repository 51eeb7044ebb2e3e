"""One situation in which each alert fires, and one close to it in which it must not.

Values are promtool's: "0+5x30" is a counter that grows by 5 each minute, "_" a missing sample.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Case:
    """What Prometheus has scraped by `at`, and whether the alert fires then, with these labels beside its own."""

    alert: str
    fires: bool
    at: str
    series: Mapping[str, str]
    labels: Mapping[str, str] = field(default_factory=dict)


GENERATE = 'method="GenerationService/Generate"'
SUBMIT = 'method="FeedbackService/SubmitFeedback"'
_NAMED = {"method": "GenerationService/Generate"}


def _handled(code: str, method: str = GENERATE) -> str:
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


CASES = (
    Case("PapaTargetDown", True, "8m", {'up{job="papa",instance="a"}': "0x20"}, {"job": "papa", "instance": "a"}),
    Case("PapaTargetDown", False, "8m", {'up{job="papa",instance="a"}': "1 0 0 0 1x20", 'up{job="x"}': "0x20"}),
    Case("PapaGatewayAbsent", True, "8m", {"up": "1x20"}),
    Case("PapaGatewayAbsent", False, "8m", {'papa_build_info{version="1"}': "1x20"}),
    Case("PapaErrorRateHigh", True, "20m", {_handled("OK"): "0+90x30", _handled("INTERNAL"): "0+10x30"}, _NAMED),
    # What callers got wrong, refusals for want of room, and watches that ran out of time are no errors of the service.
    Case(
        "PapaErrorRateHigh",
        False,
        "20m",
        {
            _handled("OK"): "0+90x30",
            _handled("INVALID_ARGUMENT"): "0+10x30",
            _handled("RESOURCE_EXHAUSTED"): "0+10x30",
            _handled("DEADLINE_EXCEEDED", 'method="UserService/WatchUser"'): "0+90x30",
            _handled("INTERNAL"): "0+1x30",
        },
    ),
    Case("PapaGenerateSlow", True, "30m", _latencies("papa_rpc_duration_seconds", GENERATE, "50", "50"), _NAMED),
    Case("PapaGenerateSlow", False, "30m", _latencies("papa_rpc_duration_seconds", GENERATE, "99", "1")),
    Case(
        "PapaGeneratorOverloaded", True, "20m", {_handled("OK"): "0+90x30", _handled("RESOURCE_EXHAUSTED"): "0+10x30"}
    ),
    Case(
        "PapaGeneratorOverloaded",
        False,
        "20m",
        {
            _handled("OK"): "0+99x30",
            _handled("RESOURCE_EXHAUSTED"): "0+1x30",
            _handled("RESOURCE_EXHAUSTED", SUBMIT): "0+90x30",
        },
    ),
    Case(
        "PapaGeneratorStalled",
        True,
        "20m",
        {"papa_engine_queued_rows": "5x30", "papa_engine_step_duration_seconds_count": "100x30"},
    ),
    Case(
        "PapaGeneratorStalled",
        False,
        "20m",
        {"papa_engine_queued_rows": "5x30", "papa_engine_step_duration_seconds_count": "0+10x30"},
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
    Case("PapaFeedbackStuck", True, "15m", {"papa_feedback_oldest_age_seconds": "0+60x30"}),
    Case("PapaFeedbackStuck", False, "15m", {"papa_feedback_oldest_age_seconds": "0+20x30"}),
    Case("PapaBacklogGrowing", True, "45m", {"papa_feedback_backlog_events": "0+500x60"}),
    Case("PapaBacklogGrowing", False, "45m", {"papa_feedback_backlog_events": "20000-100x60"}),
    Case("PapaNobodyTrains", True, "10m", {'papa_partitions_owned{instance="a"}': "64 0x30"}),
    Case(
        "PapaNobodyTrains",
        False,
        "10m",
        {'papa_partitions_owned{instance="a"}': "0x30", 'papa_partitions_owned{instance="b"}': "64x30"},
    ),
    Case(
        "PapaDeadLetters",
        True,
        "10m",
        {'papa_feedback_dead_letters_total{reason="attempts"}': "0 0 1x30"},
        {"reason": "attempts"},
    ),
    Case(
        "PapaDeadLetters",
        True,
        "10m",
        {'papa_feedback_dead_letters_total{reason="sample"}': "_ _ 1x30"},
        {"reason": "sample"},
    ),
    Case("PapaDeadLetters", False, "90m", {'papa_feedback_dead_letters_total{reason="attempts"}': "1x120"}),
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
    ),
    Case(
        "PapaAdapterRefused",
        True,
        "10m",
        {'papa_adapter_refused_total{reason="finite"}': "_ _ 1x30"},
        {"reason": "finite"},
    ),
    Case("PapaAdapterRefused", False, "40m", {'papa_adapter_refused_total{reason="sha256"}': "4x60"}),
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
    Case(
        "PapaRedisNearlyFull",
        True,
        "15m",
        {"papa_redis_memory_used_bytes": "90x20", "papa_redis_memory_limit_bytes": "100x20"},
    ),
    # Half full; and a Redis that lets nobody look, whose gauges stay at zero.
    Case(
        "PapaRedisNearlyFull",
        False,
        "15m",
        {
            'papa_redis_memory_used_bytes{instance="a"}': "50x20",
            'papa_redis_memory_limit_bytes{instance="a"}': "100x20",
            'papa_redis_memory_used_bytes{instance="b"}': "0x20",
            'papa_redis_memory_limit_bytes{instance="b"}': "0x20",
        },
    ),
    Case("PapaRedisPersistenceFailing", True, "8m", {"papa_redis_persistence_failing": "1x20"}),
    Case("PapaRedisPersistenceFailing", False, "8m", {"papa_redis_persistence_failing": "1 0x20"}),
    Case("PapaCertificateExpires", True, "20m", {"papa_gateway_certificate_expiry_timestamp_seconds": "600000x30"}),
    # A month from now; and a gateway without a certificate.
    Case(
        "PapaCertificateExpires",
        False,
        "20m",
        {
            'papa_gateway_certificate_expiry_timestamp_seconds{instance="a"}': "2600000x30",
            'papa_gateway_certificate_expiry_timestamp_seconds{instance="b"}': "0x30",
        },
    ),
)
