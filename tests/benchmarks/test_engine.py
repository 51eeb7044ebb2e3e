"""The engine's benchmarks: fair turns, ratios the right way round, and alternatives that compute the same."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
import torch
from papa_serving.generator.engine import Engine, EngineConfig
from papa_serving.generator.slots import Slots

from benchmarks.engine import __main__ as bench
from benchmarks.engine import batching, record
from benchmarks.engine.batching import StaticEngine, arrivals, compare
from benchmarks.engine.page import Goal
from benchmarks.engine.paired import Paired, take_turns
from benchmarks.engine.passes import against_peft, compiled, mixed, precisions
from benchmarks.engine.record import percentile
from benchmarks.engine.rotation import COLD, rotation
from benchmarks.engine.updates import together
from papa.config import DEFAULT_LORA
from papa.denoiser import load_denoiser
from tests.generator.support import GatedDenoiser, Run, submit
from tests.trainer.tiny_backbone import write_tiny_backbone


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    return str(write_tiny_backbone(tmp_path_factory.mktemp("backbone")))


def test_alternatives_take_turns_and_the_first_round_is_not_timed():
    order = []
    paired = take_turns({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, turns=2)
    assert order == ["a", "b", "a", "b", "b", "a"]
    assert [len(seconds) for seconds in paired.seconds.values()] == [2, 2]


def test_the_faster_alternative_has_the_ratio_above_one():
    paired = Paired({"fast": [1.0, 2.0, 4.0], "slow": [2.0, 6.0, 4.0]})
    assert paired.ratio("fast", "slow") == 2.0
    assert paired.ratio("slow", "fast") == 0.5
    assert paired.spread("fast", "slow") == (1.0, 3.0)


def test_every_alternative_runs(backbone):
    denoiser = load_denoiser(backbone, DEFAULT_LORA)
    assert set(mixed(denoiser, 4, 1).seconds) == {"base", "1 users", "4 users"}
    assert set(against_peft(backbone, 2, 1, None).seconds) == {"ours", "peft, switching", "peft, adapter_names"}
    assert len(precisions(backbone, "cpu", 2, 1).seconds) == 4
    # Inductor would take minutes; that blocks are compiled and called is the same with any backend.
    assert set(compiled(backbone, "cpu", 2, 1, backend="eager").seconds) == {"eager", "compiled"}
    assert set(together(denoiser, 2, (2,), 1).seconds) == {"1 at once", "2 at once"}


def test_users_in_rotation_are_all_served_whatever_cache_they_miss(backbone):
    paired, cold = rotation(load_denoiser(backbone, DEFAULT_LORA), (3, 100), 1)
    assert set(paired.seconds) == {"3 users", "100 users"}
    assert len(cold) == COLD


def test_arrivals_come_at_the_asked_rate_and_the_same_for_the_same_seed():
    expected = arrivals(50.0, 100.0, seed=1)
    assert 4_500 < len(expected) < 5_500
    assert expected == arrivals(50.0, 100.0, seed=1)


def test_both_kinds_of_batching_meet_the_same_arrivals(backbone, monkeypatch):
    monkeypatch.setattr(batching, "_row_steps_per_second", lambda denoiser: 5_000.0)
    found = compare(load_denoiser(backbone, DEFAULT_LORA), loads=(0.3, 0.5), seconds=0.5)
    continuous, static = (found["curves"][kind] for kind in ("continuous", "static"))
    assert [point["generations"] for point in continuous] == [point["generations"] for point in static]
    assert found["figures"]["load (share of the most)"] == 0.5


def test_a_long_static_batch_keeps_a_newcomer_waiting_and_a_continuous_one_does_not():
    short_first = {}
    for kind in (Engine, StaticEngine):
        denoiser = GatedDenoiser()
        engine = kind(denoiser, Slots(1, denoiser.layout.size, denoiser.device, denoiser.dtype), EngineConfig())
        engine.start()
        long, short = submit(engine, Run("a", steps=40)), None
        denoiser.arrive()
        short = submit(engine, Run("b", steps=2))
        denoiser.advance(4)
        short_first[kind] = max(map(len, denoiser.steps)) == 2
        denoiser.open()
        long.wait()
        short.wait()
        engine.stop()
    assert short_first == {Engine: True, StaticEngine: False}


def test_a_percentile_is_a_value_that_occurred():
    assert percentile([4.0, 1.0, 3.0, 2.0], 0.5) == 2.0
    assert percentile([float(i) for i in range(1, 101)], 0.95) == 95.0
    assert percentile([7.0], 0.95) == 7.0


def test_the_page_says_met_and_missed(tmp_path, monkeypatch):
    def figures(options):
        return {"batch": 64, "ratios": {"base": [1, 1, 1], "32 users": [0.9, 0.8, 0.97]}, "seconds": {}}

    monkeypatch.setitem(bench.PARTS, "mixed", figures)
    threads = torch.get_num_threads()
    assert bench.main(["mixed", "--out", str(tmp_path), "--threads", str(threads)]) == 0
    written = (tmp_path / "engine.md").read_text()
    assert "| 32 users in one batch ÷ base without adapters | ≥ 0.95 | 0.90 | **no** |" in written
    assert "peft, one user at a time, switching | ≥ 4 | not measured | – |" in written
    assert (tmp_path / "engine" / "mixed.png").stat().st_size > 1000
    record = json.loads((tmp_path / "engine" / "mixed.json").read_text())
    assert record["command"].startswith("papa bench engine mixed --out ")
    record["ratios"]["32 users"][0] = 0.96
    (tmp_path / "engine" / "mixed.json").write_text(json.dumps(record))
    assert bench.main(["--report-only", "--out", str(tmp_path), "--threads", str(threads)]) == 0
    assert "| ≥ 0.95 | 0.96 | yes |" in (tmp_path / "engine.md").read_text()


def test_a_time_below_its_bound_is_met():
    goal = Goal("freshness", "p95", "", 5.0, below=True)
    assert goal.met(4.9)
    assert not goal.met(5.0)


def test_a_part_that_does_not_exist_is_refused(capsys):
    with pytest.raises(SystemExit):
        bench.main(["mixd"])
    assert "any of mixed, peft" in capsys.readouterr().err


def test_a_part_keeps_the_arguments_that_it_was_measured_with(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser(prog="papa bench parts")
    parts = {name: lambda options, name=name: {"figures": {name: options.turns}} for name in ("one", "other")}
    record.arguments(parser, parts)
    parser.add_argument("--turns", type=int, default=7)
    threads = torch.get_num_threads()
    try:
        assert (
            record.measure(parser, ["one", "other", "--turns", "3", "--threads", "1", "--out", str(tmp_path)], parts)
            == 0
        )
    finally:
        torch.set_num_threads(threads)
    for name in parts:
        kept = json.loads((tmp_path / "engine" / f"{name}.json").read_text())
        assert kept["command"] == f"papa bench parts {name} --turns 3 --threads 1 --out {tmp_path}"
        assert kept["figures"] == {name: 3}
