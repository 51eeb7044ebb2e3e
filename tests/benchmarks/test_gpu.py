"""`make gpu` on a CPU: every part runs and is recorded, and the page says what was measured and what was not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks.engine import paired
from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu import page, parts
from benchmarks.gpu.models import PUBLISHED, network
from benchmarks.gpu.parts import PARTS, Run


def measured(part: str, out: Path) -> dict:
    assert gpu.main(["--tiny", "--device", "cpu", "--out", str(out), "--seconds", "1", "--part", part]) == 0
    return json.loads((out / "gpu" / f"{part}.json").read_text())


@pytest.mark.parametrize("part", PARTS)
def test_every_part_runs_and_is_recorded(tmp_path: Path, part: str) -> None:
    found = measured(part, tmp_path)
    assert found["tiny"] and found["machine"].startswith("CPU") and found["torch"] == torch.__version__
    assert found.get("ratios") or found.get("checks") or found.get("curves")
    written = page.page({part: found})
    assert "Tiny sizes" in written and f"## {part}" in written and found["command"] in written
    assert written.count("Not measured.") == len(PARTS) - 1


def test_the_page_has_every_part_and_says_when_nothing_was_measured() -> None:
    assert set(page.SHARES) == set(PARTS)
    assert sum(page.SHARES.values()) <= 8 * 60
    written = page.page({})
    assert written.count("not measured") == len(page.GOALS)
    assert "No card has been at hand" in written


def test_every_goal_reads_a_figure_that_a_part_records() -> None:
    record = {"ratios": {"16 users ÷ base": [0.97, 0.9, 1.0]}, "figures": {"like → served, p95, s": 0.4}}
    assert page.GOALS[1].figure({"sd15": record}) == 0.97
    (served,) = (goal for goal in page.GOALS if goal.below)
    assert served.met(0.4) and not served.met(1.0)


def test_a_batch_that_computes_something_else_fails_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "TOLERANCES", {"float32": -1.0, "bfloat16": -1.0})
    given = ["--tiny", "--device", "cpu", "--out", str(tmp_path), "--part", "correctness"]
    assert gpu.main(given) == 1
    assert "**no**" in page.page({"correctness": json.loads((tmp_path / "gpu" / "correctness.json").read_text())})


def test_parts_run_in_processes_of_their_own_and_one_that_hangs_takes_none_along(tmp_path: Path, capfd) -> None:
    given = ["rotation", "--tiny", "--device", "cpu", "--out", str(tmp_path), "--minutes", "600"]
    assert gpu.main(given) == 0
    assert {path.stem for path in (tmp_path / "gpu").iterdir()} == {"rotation"}
    given[given.index("600")] = "0.01"
    assert gpu.main(["sdxl", *given[1:]]) == 1
    assert "did not end in time" in capfd.readouterr().out


def test_what_is_missing_comes_from_the_wheels_or_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(gpu.REQUIRED, "a_module_that_nobody_has", "a-package")
    monkeypatch.delenv("GPU_WHEELS", raising=False)
    with pytest.raises(SystemExit, match="missing: a-package"):
        gpu.interpreter(tmp_path)


def test_a_turn_begins_no_later_than_allowed() -> None:
    calls: list[str] = []
    found = paired.take_turns({"a": lambda: calls.append("a")}, 1_000_000, until=0.0)
    assert found.seconds["a"] and len(calls) == 2


@pytest.mark.parametrize(("name", "parameters"), [("sd15", 859_520_964), ("sdxl", 2_567_463_684)])
def test_published_sizes_have_the_published_numbers_of_parameters(name: str, parameters: int) -> None:
    model = network(PUBLISHED[name], "meta", torch.bfloat16)
    assert sum(each.numel() for each in model.parameters()) == parameters


def test_a_gpu_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[bool] = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waited.append(True))
    paired.take_turns({"a": lambda: None}, turns=2)
    assert len(waited) == 4
    assert Run("cuda:0", 1.0, tiny=True).fast is torch.bfloat16
