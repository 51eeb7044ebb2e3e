"""Converts the reports of experiments from protobuf messages."""

from __future__ import annotations

from papa_serving.client.records import ArmRate, ArmReport, ExperimentReport, Interval
from papa_serving.stubs.serving.v1 import experiment_pb2


def reports(message: experiment_pb2.GetReportResponse) -> list[ExperimentReport]:
    """The experiments of a deployment."""
    return [
        ExperimentReport(each.experiment, each.salt, each.baseline, tuple(map(_arm, each.arms)))
        for each in message.experiments
    ]


def _arm(message: experiment_pb2.ArmReport) -> ArmReport:
    return ArmReport(message.arm, message.share, message.users, message.shown, tuple(map(_rate, message.rates)))


def _rate(message: experiment_pb2.ArmRate) -> ArmRate:
    return ArmRate(
        message.measure,
        message.hits,
        _interval(message.rate),
        _interval(message.difference) if message.HasField("difference") else None,
        _interval(message.lift) if message.HasField("lift") else None,
    )


def _interval(message: experiment_pb2.Interval) -> Interval:
    return Interval(message.estimate, message.low, message.high)
