"""The engine's benchmarks: fair turns, ratios the right way round, and alternatives that compute the same."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks.engine import __main__ as bench
from benchmarks.engine.page import page
from benchmarks.engine.paired import Paired, take_turns
from benchmarks.engine.passes import against_peft, mixed
from benchmarks.engine.updates import together
from papa.config import DEFAULT_LORA
from papa.denoiser import load_denoiser
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
    assert set(together(denoiser, 2, (2,), 1).seconds) == {"1 at once", "2 at once"}


def test_the_page_says_met_and_missed(tmp_path, monkeypatch):
    def figures(options):
        return {"batch": 64, "ratios": {"base": [1, 1, 1], "32 users": [0.9, 0.8, 0.97]}, "seconds": {}}

    monkeypatch.setitem(bench.PARTS, "mixed", figures)
    threads = torch.get_num_threads()
    assert bench.main(["mixed", "--out", str(tmp_path), "--threads", str(threads)]) == 0
    written = (tmp_path / "engine.md").read_text()
    assert "| 32 users in one batch ÷ base without adapters | 0.95 | 0.90 | **no** |" in written
    assert "| ÷ peft, one user at a time | 4.0 | not measured | – |" in written
    found = json.loads((tmp_path / "engine.json").read_text())
    found["mixed"]["ratios"]["32 users"][0] = 0.96
    assert "| 0.95 | 0.96 | yes |" in page(found)
