"""Cases of the rules that need kube-state-metrics, the kubelet or the KubeRay operator; see alert_cases.py."""

from __future__ import annotations

from tests.deploy.alert_cases import Case

_GATEWAYS_AVAILABLE = 'kube_deployment_status_replicas_available{deployment="papa-gateway"}'
_CREATED = 'kube_deployment_created{deployment="papa-gateway"}'
_STUCK = 'deployment="papa-gateway",condition="Progressing",status="false"'
_CLAIM = "persistentvolumeclaim"
HEAD, GENERATOR, TRAINER = "papa-abcde-head-x1", "papa-abcde-generator-worker-x2", "papa-abcde-trainer-worker-x3"


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


KUBERNETES_CASES = (
    # Never seen by Prometheus at all: the chart knows the name.
    Case("PapaGatewayUnavailable", True, "13m", {"up": "1x20"}, other={'papa_build_info{version="1"}': "1x20"}),
    # They run and report, and are not ready.
    Case("PapaGatewayUnavailable", True, "13m", {"papa_build_info": "1x20", _GATEWAYS_AVAILABLE: "0x20"}),
    Case("PapaGatewayUnavailable", False, "13m", {"papa_build_info": "1x20", _GATEWAYS_AVAILABLE: "1x20"}),
    # They are gone: PapaGatewayAbsent says so, and one page is enough.
    Case("PapaGatewayUnavailable", False, "30m", {"papa_build_info": "1x5 _x30", _GATEWAYS_AVAILABLE: "1x5 0x30"}),
    # The image of a new installation is pulled for a quarter of an hour.
    Case(
        "PapaGatewayUnavailable",
        False,
        "15m",
        {_GATEWAYS_AVAILABLE: "0x20", _CREATED: "0x20"},
    ),
    Case("PapaHeadAbsent", True, "30m", _pods(head="0")),
    Case("PapaHeadAbsent", False, "30m", _pods()),
    # The images of a new installation are pulled for twenty-five minutes; after fifty something is wrong.
    Case("PapaHeadAbsent", False, "25m", _pods(head="0") | {_CREATED: "0x60"}),
    Case("PapaHeadAbsent", True, "50m", _pods(head="0") | {_CREATED: "0x60"}),
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
    # The images of a new installation are pulled for twenty-five minutes; after fifty something is wrong.
    Case("PapaRayServiceNotReady", False, "25m", {_rayservice("ready", "false"): "1x60", _CREATED: "0x60"}),
    Case("PapaRayServiceNotReady", True, "50m", {_rayservice("ready", "false"): "1x60", _CREATED: "0x60"}),
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
    # The only gateway is a new one, which never becomes ready beside the old one.
    Case(
        "PapaUpgradeStuck",
        True,
        "60m",
        {
            'kube_deployment_status_replicas_updated{deployment="papa-gateway"}': "1x90",
            'kube_deployment_spec_replicas{deployment="papa-gateway"}': "1x90",
            f"kube_deployment_status_condition{{{_STUCK}}}": "1x90",
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

_NEW = "papa-abcde-generator-worker-y9"
SEEN_WHILE_A_POD_PULLS = {
    **{name: values.replace("x60", "x100") for name, values in _pods().items()},
    'papa_build_info{pod="papa-gateway-5f-1"}': "1x100",
    _GATEWAYS_AVAILABLE: "1x100",
    'up{job="papa",component="ray-head"}': "1x100",
    _rayservice("ready", "true"): "1x100",
    "papa_partitions_owned": "64x100",
    # A node is lost with the only generator. Its pod is made anew, and pulls the image for five minutes.
    f'up{{job="papa",instance="a",component="generator",pod="{GENERATOR}"}}': "1x60 _x40",
    f'papa_engines_running{{pod="{GENERATOR}"}}': "1x60 _x40",
    f'kube_pod_owner{{pod="{_NEW}",owner_kind="RayCluster",owner_name="papa-abcde"}}': "_x60 1x40",
    f'kube_pod_status_phase{{pod="{_NEW}",phase="Pending"}}': "_x60 1x5 0x40",
    f'kube_pod_status_phase{{pod="{_NEW}",phase="Running"}}': "_x60 0x5 1x40",
    f'kube_pod_status_ready{{pod="{_NEW}",condition="true"}}': "_x60 0x6 1x40",
    f'up{{job="papa",instance="b",component="generator",pod="{_NEW}"}}': "_x60 0x5 1x40",
    f'papa_engines_running{{pod="{_NEW}"}}': "_x60 _x5 0 1x40",
}
"""Of one release, by the minute; the pull is from minute 61 to 66."""
