"""The ingestion benchmark against a real gateway, a real redis-server and its echo."""

from __future__ import annotations

import pytest
from papa_serving.stubs.serving.v1 import feedback_pb2

from benchmarks.feedback.ingestion import measure
from benchmarks.feedback.load import _accepted, events


@pytest.mark.redis
def test_every_way_is_measured_against_the_echo():
    found, both, gateway = measure(1, {"unary": 20, "streamed": 40, "batched": 2_500})
    assert {way: set(paired.seconds) for way, paired in found.items()} == {
        way: {way, "echo"} for way in ("unary", "streamed", "batched")
    }
    assert 0 < both <= gateway


def test_no_event_is_sent_twice():
    ids = [event.event_id for _ in range(3) for event in events(100)]
    assert len(set(ids)) == 300


def test_a_refused_event_ends_the_measurement():
    with pytest.raises(RuntimeError, match="refused"):
        _accepted(feedback_pb2.FeedbackOutcome(event_id="a", error=feedback_pb2.FeedbackError(reason="QUEUE_FULL")))
