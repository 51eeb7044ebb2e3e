"""`papa bench alignment`: what it chooses, and what it says when there is nothing to do or nothing to do it with."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.alignment.__main__ import main
from benchmarks.alignment.grid import EXPERIMENTS
from benchmarks.alignment.runner import raw_file

CELL = ("main", "--taste", "9,5,7", "--seed", "0", "--no-report")


def test_a_missing_data_set_is_named_with_the_command_that_gets_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*CELL, "--data", str(tmp_path / "data"), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert f"{tmp_path}/data/fashion_mnist.npz is missing" in said
    assert f"papa data fetch fashion-mnist --out {tmp_path}/data" in said
    assert not (tmp_path / "out").exists()


def test_a_finished_cell_says_so_and_how_to_make_it_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run,) = (run for run in EXPERIMENTS["main"]() if run.taste == (5, 7, 9) and run.seed == 0)
    record = raw_file(tmp_path / "raw", run)
    record.parent.mkdir()
    record.write_text("{}\n")
    assert main([*CELL, "--out", str(tmp_path)]) == 0
    assert "1 runs, all there" in capsys.readouterr().out
    nowhere = str(tmp_path / "data")
    assert main([*CELL, "--out", str(tmp_path), "--again", "--data", nowhere]) == 2  # so it would have begun


def test_a_part_that_no_run_is_of_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["main", "--taste", "0", "--out", str(tmp_path)]) == 2
    assert "no run of these experiments is so" in capsys.readouterr().err
