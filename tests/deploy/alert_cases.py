"""Situations in which each alert fires, and close ones in which it must not.

Values are promtool's: "0+5x30" is a counter that grows by 5 each minute, "_" a missing sample. Every case is put to two
releases at once (see test_rules.py), so its series name neither namespace nor release.
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


DAY = 86_400
_EXPIRY = "papa_gateway_certificate_expiry_timestamp_seconds"
_GATEWAYS_AVAILABLE = 'kube_deployment_status_replicas_available{deployment="papa-gateway"}'
_CLAIM = "persistentvolumeclaim"
HEAD, GENERATOR, TRAINER = "papa-abcde-head-x1", "papa-abcde-generator-worker-x2", "papa-abcde-trainer-worker-x3"


def _redis(used: int) -> dict[str, str]:
    return {"papa_redis_memory_used_bytes": f"{used}x30", "papa_redis_memory_limit_bytes": "100x30"}


def _durations(fast: str, slow: str) -> dict[str, str]:
    """Of generations, `fast` of which take up to ten seconds."""
    whole = str(int(fast) + int(slow))
    return {
        f'papa_rpc_duration_seconds_bucket{{{GENERATE},le="10.0"}}': f"0+{fast}x450",
        f"papa_rpc_duration_seconds_count{{{GENERATE}}}": f"0+{whole}x450",
    }


def _loop(served: str, served_late: str, learnt: str, learnt_late: str) -> dict[str, str]:
    """Of revisions: served and committed within half a minute, or later."""
    return {
        'papa_feedback_to_served_seconds_bucket{le="30.0"}': f"0+{served}x450",
        "papa_feedback_to_served_seconds_count": f"0+{int(served) + int(served_late)}x450",
        'papa_feedback_to_commit_seconds_bucket{le="30.0"}': f"0+{learnt}x450",
        "papa_feedback_to_commit_seconds_count": f"0+{int(learnt) + int(learnt_late)}x450",
    }


def _pods(head: str = "1", generator: str = "1", trainer: str = "1") -> dict[str, str]:
    """The pods of a release, with whether they are ready."""
    owner = 'owner_kind="RayCluster",owner_name="papa-abcde"'
    series = {
        'kube_pod_owner{pod="papa-gateway-5f-1",owner_kind="ReplicaSet",owner_name="papa-gateway-5f"}': "1x60",
        'kube_pod_status_ready{pod="papa-gateway-5f-1",condition="true"}': "1x60",
    }
    for pod, ready in ((HEAD, head), (GENERATOR, generator), (TRAINER, trainer)):
        series[f'kube_pod_owner{{pod="{pod}",{owner}}}'] = "1x60"
        series[f'kube_pod_status_ready{{pod="{pod}",condition="true"}}'] = f"{ready}x60"
    return series


def _phase(phase: str, pod: str) -> str:
    return f'kube_pod_status_phase{{pod="{pod}",phase="{phase}"}}'


def _rayservice(condition: str, status: str, name: str = "papa") -> str:
    return f'kuberay_service_condition_{condition}{{name="{name}",condition="{status}"}}'


def _volume(claim: str, bytes_free: int, files_free: int = 90) -> dict[str, str]:
    """Per cent that are left, as two nodes that mount the volume report them."""
    series = {}
    for node in ("a", "b"):
        labels = f'{_CLAIM}="{claim}",node="{node}"'
        series[f"kubelet_volume_stats_available_bytes{{{labels}}}"] = f"{bytes_free}x60"
        series[f"kubelet_volume_stats_capacity_bytes{{{labels}}}"] = "100x60"
        series[f"kubelet_volume_stats_inodes_free{{{labels}}}"] = f"{files_free}x60"
        series[f"kubelet_volume_stats_inodes{{{labels}}}"] = "100x60"
    return series


def _autoscaler(now: int, least: int = 2, most: int = 10) -> dict[str, str]:
    hpa = 'horizontalpodautoscaler="papa-gateway"'
    return {
        f"kube_horizontalpodautoscaler_status_current_replicas{{{hpa}}}": f"{now}x60",
        f"kube_horizontalpodautoscaler_spec_min_replicas{{{hpa}}}": f"{least}x60",
        f"kube_horizontalpodautoscaler_spec_max_replicas{{{hpa}}}": f"{most}x60",
    }


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
    Case("PapaGatewayAbsent", True, "20m", {'papa_build_info{version="1"}': "1x10 _x20"}),
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
        "20m",
        {
            "papa_build_info": "1x30",
            'papa_engines_running{pod="a"}': "1x10 _x20",
            'papa_engines_running{pod="b"}': "1x10 0x20",
            'papa_engines_running{pod="gateway"}': "0x30",
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
    Case("PapaGeneratorAbsent", True, "40m", {"papa_build_info": "1x50", "papa_engines_running": "0x50"}),
    Case("PapaErrorRateHigh", True, "20m", {_handled("OK"): "0+90x30", _handled("INTERNAL"): "0+10x30"}, _NAMED),
    # Everything fails at low traffic while another release is soaked with calls that end well.
    Case(
        "PapaErrorRateHigh",
        True,
        "25m",
        {_handled("UNAVAILABLE"): "0+1x30"},
        _NAMED,
        other={_handled("OK"): "0+6000x30"},
    ),
    # One failure of a quiet night.
    Case("PapaErrorRateHigh", False, "25m", {_handled("UNAVAILABLE"): "0 0 0 0 0 1x30", _handled("OK"): "0+1x30"}),
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
    Case("PapaNobodyTrains", True, "10m", {"papa_build_info": "1x30", "papa_partitions_owned": "64 0x30"}),
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
    Case("PapaNobodyTrains", True, "40m", {"papa_build_info": "1x50", "papa_partitions_owned": "0x50"}),
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
    # Every fourth generation fails for ten minutes: the short and the long window agree.
    Case(
        "PapaGenerateErrorBudget",
        True,
        "70m",
        {
            _handled("OK"): "0+60x59 3540+45x20",
            _handled("UNAVAILABLE"): "0x55 0+60x30",
        },
        severities=("critical",),
    ),
    # Low traffic, everything fails, while another release is soaked with calls that end well.
    Case(
        "PapaGenerateErrorBudget",
        True,
        "30m",
        {_handled("UNAVAILABLE"): "0+1x60"},
        severities=("critical",),
        other={_handled("OK"): "0+6000x60"},
    ),
    # It has failed, and has been well for half an hour.
    Case(
        "PapaGenerateErrorBudget",
        False,
        "60m",
        {
            _handled("OK"): "0+60x90",
            _handled("UNAVAILABLE"): "0+10x15 150x90",
        },
    ),
    # Two failures of a quiet night.
    Case("PapaGenerateErrorBudget", False, "30m", {_handled("UNAVAILABLE"): "0+1x2 2x90"}),
    # One call in fifty for a day and a half: four times the budget, too slow for a page.
    Case(
        "PapaGenerateErrorBudget",
        True,
        "36h",
        {
            _handled("OK"): "0+490x450",
            _handled("INTERNAL"): "0+10x450",
        },
        severities=("warning",),
        interval="5m",
    ),
    Case(
        "PapaGenerateErrorBudget",
        False,
        "36h",
        {
            _handled("OK"): "0+4990x450",
            _handled("INTERNAL"): "0+10x450",
        },
        interval="5m",
    ),
    Case("PapaGenerateLatencyBudget", True, "30m", _durations("10", "90"), severities=("critical",)),
    Case("PapaGenerateLatencyBudget", True, "36h", _durations("80", "20"), severities=("warning",), interval="5m"),
    Case("PapaGenerateLatencyBudget", False, "36h", _durations("98", "2"), interval="5m"),
    Case("PapaLoopBudget", True, "30m", _loop("10", "90", "10", "90"), severities=("critical",)),
    # Users who come back late see late what was learnt in time: no reason to wake anybody.
    Case("PapaLoopBudget", False, "30m", _loop("10", "90", "99", "1")),
    Case("PapaLoopBudget", True, "36h", _loop("80", "20", "99", "1"), severities=("warning",), interval="5m"),
    Case("PapaLoopBudget", False, "36h", _loop("98", "2", "98", "2"), interval="5m"),
)

KUBERNETES_CASES = (
    # Never seen by Prometheus at all: the chart knows the name.
    Case("PapaGatewayUnavailable", True, "8m", {"up": "1x20"}, other={'papa_build_info{version="1"}': "1x20"}),
    Case("PapaGatewayUnavailable", True, "8m", {"papa_build_info": "1x20", _GATEWAYS_AVAILABLE: "0x20"}),
    Case("PapaGatewayUnavailable", False, "8m", {"papa_build_info": "1x20", _GATEWAYS_AVAILABLE: "1x20"}),
    # The image of a new installation is pulled for ten minutes.
    Case(
        "PapaGatewayUnavailable",
        False,
        "10m",
        {
            _GATEWAYS_AVAILABLE: "0x20",
            'kube_deployment_created{deployment="papa-gateway"}': "0x20",
        },
    ),
    Case("PapaHeadAbsent", True, "30m", _pods(head="0")),
    Case("PapaHeadAbsent", False, "30m", _pods()),
    # The pod is gone, and another one is not there yet.
    Case("PapaHeadAbsent", True, "30m", {name: value for name, value in _pods().items() if "-head-" not in name}),
    # Without kube-state-metrics its own exporter tells.
    Case(
        "PapaHeadAbsent",
        True,
        "30m",
        {'up{job="papa",component="generator"}': "1x60"},
        other={'up{job="papa",component="generator"}': "1x60", 'up{job="papa",component="ray-head"}': "1x60"},
    ),
    Case(
        "PapaPodsPending",
        True,
        "30m",
        _pods(generator="0") | {_phase("Pending", GENERATOR): "1x60"},
        {"pod": GENERATOR, "component": "generator"},
    ),
    Case("PapaPodsPending", False, "30m", _pods(generator="0") | {_phase("Pending", GENERATOR): "1x10 0x60"}),
    Case("PapaPodsPending", False, "30m", _pods() | {_phase("Pending", "somebody-else"): "1x60"}),
    Case(
        "PapaPodsNotReady",
        True,
        "30m",
        _pods(trainer="0") | {_phase("Running", TRAINER): "1x60"},
        {"pod": TRAINER, "component": "trainer"},
    ),
    Case("PapaPodsNotReady", False, "30m", _pods() | {_phase("Running", TRAINER): "1x60"}),
    Case("PapaRayServiceNotReady", True, "30m", {_rayservice("ready", "false"): "1x60"}),
    Case(
        "PapaRayServiceNotReady",
        False,
        "30m",
        {
            _rayservice("ready", "true"): "1x60",
            _rayservice("ready", "false", "other"): "1x60",
        },
    ),
    Case("PapaUpgradeStuck", True, "60m", {_rayservice("upgrade_in_progress", "true"): "1x90"}),
    Case(
        "PapaUpgradeStuck",
        True,
        "60m",
        {
            'kube_deployment_status_replicas_updated{deployment="papa-gateway"}': "1x90",
            'kube_deployment_spec_replicas{deployment="papa-gateway"}': "3x90",
        },
    ),
    Case(
        "PapaUpgradeStuck",
        False,
        "60m",
        {
            _rayservice("upgrade_in_progress", "true"): "1x20 _x60",
            _rayservice("upgrade_in_progress", "false"): "_x20 1x60",
            'kube_deployment_status_replicas_updated{deployment="papa-gateway"}': "3x90",
            'kube_deployment_spec_replicas{deployment="papa-gateway"}': "3x90",
        },
    ),
    Case(
        "PapaVolumeNearlyFull",
        True,
        "30m",
        _volume("papa-revisions", 10),
        {_CLAIM: "papa-revisions"},
        severities=("warning",),
    ),
    Case(
        "PapaVolumeNearlyFull",
        True,
        "30m",
        _volume("papa-revisions", 90, 4),
        {_CLAIM: "papa-revisions"},
        severities=("warning", "critical"),
    ),
    Case(
        "PapaVolumeNearlyFull",
        True,
        "30m",
        _volume("data-papa-valkey-0", 3),
        {_CLAIM: "data-papa-valkey-0"},
        severities=("warning", "critical"),
    ),
    Case("PapaVolumeNearlyFull", False, "30m", _volume("papa-revisions", 50) | _volume("somebody-elses", 1)),
    Case("PapaGatewaysAtMaximum", True, "30m", _autoscaler(10)),
    Case("PapaGatewaysAtMaximum", False, "30m", _autoscaler(9)),
    Case("PapaGatewaysAtMaximum", False, "30m", _autoscaler(2, most=2)),  # a fixed number
)
"""Of the rules that need kube-state-metrics, the kubelet or the KubeRay operator."""
