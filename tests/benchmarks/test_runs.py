"""Runs, simulated users and what is made of their records."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from benchmarks.alignment import archive
from benchmarks.alignment.aggregate import curve, reached
from benchmarks.alignment.findings import OPEN, findings
from benchmarks.alignment.grid import EXPERIMENTS, ordered
from benchmarks.alignment.runner import described, pending, raw_file
from benchmarks.alignment.runs import Run, overridden
from benchmarks.alignment.systems import registry
from benchmarks.alignment.targets import targets
from benchmarks.alignment.world import SimulatedUser, graded, jpeg_bytes
from papa.config import DEFAULT_UPDATE


class FirstPixel:
    """An oracle whose class is what the first pixel says."""

    def classify(self, images):
        return images[:, 0, 0, 0].round().long()


def pictures(*classes):
    images = torch.zeros(len(classes), 1, 8, 8)
    images[:, 0, 0, 0] = torch.tensor(classes, dtype=torch.float32)
    return images


def test_different_runs_have_different_files_and_survive_json(tmp_path):
    runs = {run for make in EXPERIMENTS.values() for run in make()}
    assert len({raw_file(tmp_path, run) for run in runs}) == len(runs)
    assert {Run.from_json(json.loads(json.dumps(asdict(run)))) for run in runs} == runs


def test_every_system_and_taste_is_in_the_grid():
    main, rivals = EXPERIMENTS["main"](), EXPERIMENTS["rivals"]()
    assert len({run.taste for run in main if run.dataset == "fashion_mnist"}) == 5
    assert len({run.taste for run in main if run.dataset == "mnist"}) == 3
    assert len({run.seed for run in main}) == 3
    assert {run.taste for run in rivals if run.system == "guidance"} == {run.taste for run in main}
    for system in ("d3po", "reward-model", "diffusion-kto"):
        mine = {(run.dataset, run.taste) for run in rivals if run.system == system}
        assert {dataset for dataset, _ in mine} == {"fashion_mnist", "mnist"}
        assert mine <= {(run.dataset, run.taste) for run in main}


def test_an_interrupted_grid_says_something_about_every_experiment():
    runs = ordered(EXPERIMENTS)
    assert len(set(runs)) == len(runs)
    first = set(runs[: len(EXPERIMENTS)])
    assert all(set(make()) & first for make in EXPERIMENTS.values())
    assert [run.seed for run in runs] == sorted(run.seed for run in runs)


def test_the_user_likes_the_taste():
    user = SimulatedUser(Run("ours", (1, 3)), FirstPixel())
    assert user.grades(pictures(0, 1, 2, 3), 0).tolist() == [-1, 1, -1, 1]


def test_the_user_errs_as_often_as_told_and_always_in_the_same_places():
    run = Run("ours", (1,), flipped=0.2)
    images = pictures(*[1] * 5000)
    first, again = (SimulatedUser(run, FirstPixel()).grades(images, 0) for _ in range(2))
    assert (first < 0).float().mean() == pytest.approx(0.2, abs=0.02)
    assert first.tolist() == again.tolist()


def test_the_taste_changes_half_way():
    user = SimulatedUser(Run("ours", (1,), later_taste=(2,), rounds=10), FirstPixel())
    assert user.grades(pictures(1, 2), 4).tolist() == [1, -1]
    assert user.grades(pictures(1, 2), 5).tolist() == [-1, 1]


def test_grades_by_size_are_graded_and_never_zero():
    flat, noisy = (
        torch.zeros(1, 1, 28, 28),
        torch.rand(1, 1, 28, 28, generator=torch.Generator().manual_seed(0)) * 2 - 1,
    )
    images = torch.cat([flat, noisy])
    assert jpeg_bytes(images)[0] < jpeg_bytes(images)[1]
    assert graded(images, "jpeg").tolist() == [1, -1]
    assert graded(images, "jpeg-").tolist() == [-1, 1]
    mixed = torch.cat([flat * (1 - a) + noisy * a for a in torch.linspace(0, 1, 50)])
    grades = graded(mixed, "jpeg")
    assert (grades != 0).all()
    assert len(grades.unique()) > 3


def test_complete_runs_are_not_run_again(tmp_path):
    first, second = Run("ours", (1,)), Run("ours", (2,))
    raw_file(tmp_path, first).write_text("{}\n")
    raw_file(tmp_path, second).with_suffix(".77.tmp").write_text("{}\n")
    assert pending([first, second, second], tmp_path) == [second]


def test_another_default_makes_a_run_pending_again(tmp_path, monkeypatch):
    run = Run("ours", (1,))
    before = raw_file(tmp_path, run)
    made, default = registry.SYSTEMS["ours"]
    monkeypatch.setitem(registry.SYSTEMS, "ours", (made, replace(default, steps=default.steps + 1)))
    assert raw_file(tmp_path, run) != before


def test_a_part_that_is_switched_off_leaves_a_run_what_it_was(tmp_path):
    run = Run("ours", (1,))
    without, on = replace(run, overrides=(("stable_from", 1000),)), replace(run, overrides=(("stable_from", 600),))
    assert "stable_from" not in described(without)["config"]
    assert described(on)["config"]["stable_from"] == 600
    assert raw_file(tmp_path, without) != raw_file(tmp_path, on)


def test_an_unknown_override_is_an_error():
    assert overridden(DEFAULT_UPDATE, (("steps", 3),)) == replace(DEFAULT_UPDATE, steps=3)
    with pytest.raises(TypeError, match="no_such_knob"):
        overridden(DEFAULT_UPDATE, (("no_such_knob", 3),))


def record(step, success=None, coverage=None, **more):
    measured = {} if success is None else {"success": success, "coverage": coverage}
    return {"step": step, "labels": 10 * step, "cost": 100 * step, "seconds": float(step), **measured, **more}


def test_a_curve_keeps_the_steps_at_which_all_runs_were_measured():
    runs = [[record(0, 0.2), record(1), record(2, 0.6)], [record(0, 0.4), record(1, 0.5), record(2, 0.8)]]
    found = curve(runs)
    assert (found.steps, found.runs) == ([0, 2], 2)
    assert found.mean == pytest.approx([0.3, 0.7])
    assert found.deviation == pytest.approx([0.1, 0.1])


def test_what_a_group_reached():
    good = [record(0, 0.3, 0.9), record(10, 0.92, 0.8), record(20, 0.96, 0.9)]
    bad = [record(0, 0.3, 0.9), record(10, 0.5, 0.7), record(20, 0.1, 0.2)]
    both = reached([good, bad], steps=(10, 30))
    assert both.success == pytest.approx(0.53)
    assert both.at == {10: pytest.approx(0.71)}
    assert (both.labels_to_90, both.reached_90, both.cost_to_90) == (100, 1, 1000)
    assert both.worst_coverage == pytest.approx(0.2)
    assert both.cost_per_step == pytest.approx(100)
    assert both.diverged == 1


def test_goals_count_a_run_once_that_several_experiments_share():
    lost = [record(0, 0.3, 0.9), record(30, 0.1, 0.2)]
    kept = [record(0, 0.3, 0.9), record(30, 0.97, 0.9)]
    loaded = {name: {} for name in EXPERIMENTS}
    loaded["main"] = {Run("ours", (5, 7, 9)): lost, Run("ours", (4, 8)): kept}
    loaded["exploration"] = dict(loaded["main"])
    rows = {row.split(" | ")[0]: row for row in targets(loaded) if row.startswith("| ")}
    assert "| 1 of 2 |" in rows["| no run of ours diverges"]
    assert "| 0.535 |" in rows["| success at step 30 ≥ 0.95"]
    assert "| not measured |" in rows["| 0.9 again within 100 labels after drift"]


def test_what_is_concluded_stands_on_the_page():
    page = (Path(__file__).parents[2] / "docs" / "results" / "alignment.md").read_text()
    assert len(findings()) > 10
    for name, text in findings().items():
        assert text in page, name


def test_the_records_of_the_page_lie_in_the_archive(tmp_path: Path):
    """Every experiment whose figure has a finding has records of the present settings there."""
    assert archive.unpack(archive.ARCHIVE, tmp_path) > 200
    assert archive.unpack(archive.ARCHIVE, tmp_path) == 0
    drawn = set(findings()) & set(EXPERIMENTS) - {OPEN}
    assert drawn >= {"ablations", "noise", "drift", "active", "exploration"}
    for name in drawn:
        assert any(raw_file(tmp_path, run).exists() for run in EXPERIMENTS[name]()), name


def test_an_archive_holds_what_was_packed_and_says_when_it_is_damaged(tmp_path: Path):
    raw, packed = tmp_path / "raw", tmp_path / "raw.tar.xz"
    raw.mkdir()
    for name in ("b.jsonl", "a.jsonl", "a.png", "c.77.tmp"):
        (raw / name).write_text(name)
    archive.pack(raw, packed)
    first = packed.read_bytes()
    (raw / "a.jsonl").touch()
    archive.pack(raw, packed)
    assert packed.read_bytes() == first
    assert archive.unpack(packed, tmp_path / "out") == 3
    assert (tmp_path / "out" / "b.jsonl").read_text() == "b.jsonl"
    packed.write_bytes(first[:-4] + b"odd!")
    with pytest.raises(ValueError, match="damaged"):
        archive.unpack(packed, tmp_path / "again")
