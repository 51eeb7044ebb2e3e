"""ExperimentService: how the arms of the experiments differ."""

# ruff: noqa: N802, D102 - the protos name the methods and say what they do

from __future__ import annotations

from papa_serving.attribution.lift import Interval
from papa_serving.contracts.errors import Violation
from papa_serving.gateway.conversion import validation
from papa_serving.gateway.experiments import ArmReport, Rate, Report, Trials
from papa_serving.gateway.rpc.admission import caller
from papa_serving.gateway.rpc.edge import Context
from papa_serving.stubs.serving.v1 import experiment_pb2, experiment_pb2_grpc


class ExperimentService(experiment_pb2_grpc.ExperimentServiceServicer):
    """Reports to the owner of a tenant."""

    def __init__(self, trials: Trials) -> None:
        self._trials = trials

    async def GetReport(
        self, request: experiment_pb2.GetReportRequest, context: Context
    ) -> experiment_pb2.GetReportResponse:
        violations: list[Violation] = []
        if request.tenant:
            validation.check_id(request.tenant, "tenant", violations)
        validation.refuse(violations)
        tenant = caller.get().charge_tenants(request.tenant)
        return experiment_pb2.GetReportResponse(experiments=map(_report, await self._trials.report(tenant)))


def _report(report: Report) -> experiment_pb2.ExperimentReport:
    return experiment_pb2.ExperimentReport(
        experiment=report.experiment, salt=report.salt, baseline=report.baseline, arms=map(_arm, report.arms)
    )


def _arm(arm: ArmReport) -> experiment_pb2.ArmReport:
    return experiment_pb2.ArmReport(
        arm=arm.arm, share=arm.share, users=arm.users, shown=arm.shown, rates=map(_rate, arm.rates)
    )


def _rate(rate: Rate) -> experiment_pb2.ArmRate:
    return experiment_pb2.ArmRate(
        measure=rate.measure,
        hits=rate.hits,
        rate=_interval(rate.rate),
        difference=_interval(rate.difference),
        lift=_interval(rate.lift),
    )


def _interval(interval: Interval | None) -> experiment_pb2.Interval | None:
    if interval is None:
        return None
    return experiment_pb2.Interval(estimate=interval.estimate, low=interval.low, high=interval.high)
