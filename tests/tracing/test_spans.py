"""Spans against a real OTLP receiver: what arrives, what is left out, and what a collector can not do to a call."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import grpc
import pytest
from papa_serving import tracing
from papa_serving.contracts.errors import ItemNotFound
from papa_serving.contracts.trace import checked, ids
from papa_serving.settings import Settings
from papa_serving.settings.tracing import TracingSettings, parse_headers
from pydantic import ValidationError

from tests.gateway.support.tokens import Certificates
from tests.ports import free_port
from tests.tracing.collector import Collector

SAMPLED = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
DROPPED = "00-" + "c" * 32 + "-" + "d" * 16 + "-00"

OFF = """
import asyncio, sys
from papa_serving import tracing
from papa_serving.gateway.server import Gateway
from papa_serving.settings import Settings
from tests.gateway.support.service import Service

async def call():
    service = Service()
    await service.start()
    await service.user.GetUser(__import__("papa_serving.stubs.serving.v1.user_pb2", fromlist=["x"]).GetUserRequest(
        user={"user": "alice"}))
    await service.stop()

tracing.begin(Settings().tracing, "papa-gateway")
asyncio.run(call())
with tracing.span("nothing") as span:
    assert span is tracing.current()
print(sorted(name for name in sys.modules if name.startswith("opentelemetry")))
"""


def test_while_it_is_off_the_gateway_does_not_even_import_the_sdk() -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", OFF], cwd=root, capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr


def test_a_block_is_a_span_below_what_runs_there(recording: Collector) -> None:
    tracing.continue_from(SAMPLED)
    with tracing.span("outer", "server", attributes={"papa.events": 3}) as outer:
        assert tracing.current() is outer
        with tracing.span("inner", links=[SAMPLED, "", "nonsense"]) as inner:
            inner.note({"papa.loss": 0.5})
            inner.link(DROPPED)
        tracing.record("measured", 100.0, 102.5)
    assert tracing.current().traceparent == SAMPLED
    tracing.continue_from("")
    tracing.end(5.0)
    above, below, measured = (recording.named(name) for name in ("outer", "inner", "measured"))
    assert (above.service, above.trace_id, above.parent, above.kind) == ("papa-test", "a" * 32, "b" * 16, 2)
    assert (below.trace_id, below.parent, above.attributes) == ("a" * 32, above.span_id, {"papa.events": 3})
    assert below.links == (("a" * 32, "b" * 16), ("c" * 32, "d" * 16))
    assert below.attributes == {"papa.loss": 0.5}
    assert (measured.parent, measured.seconds) == (above.span_id, 2.5)


def test_an_error_is_a_word_and_never_a_message(recording: Collector) -> None:
    for error in (ItemNotFound("no item of élise"), KeyError("élise")):
        with pytest.raises(type(error)), tracing.span(type(error).__name__):
            raise error
    tracing.end(5.0)
    assert recording.named("ItemNotFound").error == "ITEM_NOT_FOUND"
    assert recording.named("KeyError").error == "KeyError"
    assert "élise" not in str(recording.spans)


@pytest.mark.parametrize("ratio", [0.0, 1.0])
def test_what_follows_a_recorded_like_is_recorded_and_nothing_else(collector: Collector, ratio: float) -> None:
    tracing.begin(TracingSettings(enabled=True, endpoint=collector.endpoint, sample_ratio=ratio), "papa-test")
    for name, options in {
        "below the sampled": {"parent": SAMPLED},
        "below the dropped": {"parent": DROPPED},
        "after some": {"parent": "", "links": [DROPPED, SAMPLED]},
        "after none": {"parent": "", "links": [DROPPED]},
        "of its own": {"parent": ""},
    }.items():
        with tracing.span(name, **options) as span:
            assert checked(span.traceparent), "also what is not recorded has a context to hand on"
    tracing.end(5.0)
    expected = {"below the sampled", "after some"} | ({"of its own"} if ratio else set())
    assert {span.name for span in collector.spans} == expected


def test_a_collector_that_is_away_costs_spans_and_no_time_of_anybody() -> None:
    """One that never answers, and far more spans than the queue holds."""
    with Collector() as slow:
        slow.delay = 30.0
        for endpoint in (slow.endpoint, f"http://127.0.0.1:{free_port()}"):
            settings = TracingSettings(enabled=True, endpoint=endpoint, queue=512, timeout=0.5)
            tracing.begin(settings, "papa-test")
            for number in range(5000):
                with tracing.span(f"span {number}"):
                    pass
            before = time.monotonic()
            tracing.end(0.3)
            assert time.monotonic() - before < 10, "the end waits as long as it was told to, not for the exporter"
            alive = [thread for thread in threading.enumerate() if thread.name == "tracing-end"]
            assert all(thread.daemon for thread in alive)
        slow.delay = 0.0


def test_it_is_found_again_when_it_comes_back() -> None:
    port = free_port()
    settings = TracingSettings(enabled=True, endpoint=f"http://127.0.0.1:{port}", timeout=3.0)
    tracing.begin(settings, "papa-test")
    with tracing.span("before it was there"):
        pass
    with Collector(port) as collector:
        with tracing.span("after"):
            pass
        collector.named("after")
        tracing.end(5.0)


def test_tls_and_headers_reach_the_collector(tmp_path: Path) -> None:
    authority = Certificates(tmp_path)
    certificate, key = authority.issue("collector")
    credentials = grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())])
    (tmp_path / "headers").write_text("authorization=Bearer abc=\nx-team=shop\n")
    with Collector(credentials=credentials) as collector:
        tracing.begin(
            TracingSettings(
                enabled=True, endpoint=collector.endpoint, ca=authority.ca, headers_file=tmp_path / "headers"
            ),
            "papa-test",
        )
        with tracing.span("secret"):
            pass
        tracing.end(5.0)
        collector.named("secret")
        assert collector.headers[0]["authorization"] == "Bearer abc="
        assert collector.headers[0]["x-team"] == "shop"


def test_a_changed_credential_is_shown_from_the_next_export_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Half a change, which no header can be read from, keeps the former one."""
    monkeypatch.setattr("papa_serving.watched_file.EVERY", 0.0)
    file = tmp_path / "headers"
    file.write_text("authorization=first\n")
    with Collector() as collector:
        tracing.begin(TracingSettings(enabled=True, endpoint=collector.endpoint, headers_file=file), "papa-test")
        for number, content in enumerate(("authorization=first", "secret without a name", "authorization=another")):
            file.write_text(content)
            with tracing.span(f"span {number}"):
                pass
            collector.named(f"span {number}")
        tracing.end(5.0)
    assert [each["authorization"] for each in collector.headers] == ["first", "first", "another"]
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    "given", [{"headers": "Authorization=x"}, {"headers": "token"}, {"endpoint": "collector:4317"}, {"queue": 1},
              {"endpoint": "http://user:word@h:1"}, {"sample_ratio": 1.5}, {"headers_file": Path("nowhere")}]
)  # fmt: skip
def test_settings_that_cannot_work_are_refused(given: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TracingSettings.model_validate(given)


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAPA_TRACING__ENABLED", "true")
    monkeypatch.setenv("PAPA_TRACING__HEADERS", "a=1, b=two words")
    mine = Settings().tracing
    assert parse_headers(mine.headers) == (("a", "1"), ("b", "two words"))
    assert "two words" not in repr(mine)
    with pytest.raises(ValueError, match=r"tracing\.ca cannot be read"):
        tracing.begin(mine.model_copy(update={"endpoint": "https://h:1", "ca": Path("nowhere")}), "papa-test")


@pytest.mark.parametrize(
    "text",
    ["", "00", SAMPLED[:-1], SAMPLED + "0", SAMPLED.upper(), "ff" + SAMPLED[2:], f"00-{'0' * 32}-{'b' * 16}-01",
     f"00-{'a' * 32}-{'0' * 16}-01", SAMPLED + "\n", SAMPLED.replace("-", "_")],
)  # fmt: skip
def test_what_is_no_context_is_nothing(text: str) -> None:
    assert checked(text) == ""
    tracing.continue_from(text)
    assert tracing.current().traceparent == ""


def test_a_context_is_what_w3c_says(recording: Collector) -> None:
    with tracing.span("one") as span:
        pass
    tracing.end(5.0)
    assert ids(span.traceparent) == recording.named("one").identity
    assert checked(span.traceparent) == span.traceparent
