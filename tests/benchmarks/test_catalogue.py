"""The benchmark of catalogues: its measures by hand, its rivals and ours on a world that is easy to tell apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.catalogue import __main__ as command
from benchmarks.catalogue.report import tables
from benchmarks.catalogue.rivals import RIVALS
from benchmarks.catalogue.simulate import OURS, Cell, expected_calibration_error, simulate
from benchmarks.catalogue.stock import Stock
from papa.pool import Pool

CLASSES = 5


def clusters(each: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """So many points of each class around a corner of its own."""
    noise = torch.Generator().manual_seed(seed)
    classes = torch.arange(CLASSES).repeat_interleave(each)
    points = 4 * torch.eye(CLASSES, 8)[classes] + 0.5 * torch.randn(len(classes), 8, generator=noise)
    return points.half(), classes


@pytest.fixture(scope="module")
def easy() -> Stock:
    pool, _ = clusters(12, seed=1)
    features, classes = clusters(40, seed=2)
    return Stock(Pool(torch.zeros(len(pool), 1, 1, 1), pool, 7), features, classes)


@pytest.fixture(scope="module")
def records(easy: Stock) -> list[dict[str, Any]]:
    return list(simulate(Cell("easy", (1, 3), (10, 30), seed=1), easy))


def test_every_system_is_measured_on_its_next_page(records: list[dict[str, Any]]) -> None:
    assert [(each["system"], each["labels"]) for each in records] == [
        (name, labels) for name in (OURS, *RIVALS) for labels in (10, 30)
    ]
    for each in records:
        hits = [one for one in each["classes"] if one in (1, 3)]
        assert each["precision"] == len(hits) / 10
        assert each["coverage"] == len(set(hits)) / 2


def test_who_learns_finds_what_is_liked_and_all_kinds_of_it(records: list[dict[str, Any]]) -> None:
    known = {each["system"]: each for each in records if each["labels"] == 30}
    assert (known[OURS]["precision"], known[OURS]["coverage"]) == (1.0, 1.0)
    assert [known[name]["precision"] for name in ("nearest liked", "logistic", "LinUCB", "Thompson")] == [1.0] * 4
    assert known["random"]["precision"] < 1.0


def test_a_cell_is_the_same_each_time_and_slips_change_it(easy: Stock, records: list[dict[str, Any]]) -> None:
    assert list(simulate(Cell("easy", (1, 3), (10, 30), seed=1), easy)) == records
    flipped = list(simulate(Cell("easy", (1, 3), (30,), seed=1, flipped=0.4), easy))
    assert any(each["ece"] != before["ece"] for each, before in zip(flipped, records[1::2], strict=True))


def test_calibration_by_hand() -> None:
    liked = np.array([True, True, False, False])
    assert expected_calibration_error(np.array([1.0, 1.0, 0.0, 0.0]), liked) == 0.0
    assert expected_calibration_error(np.array([0.95, 0.95, 0.05, 0.05]), liked) == pytest.approx(0.05)
    assert expected_calibration_error(np.array([0.5, 0.5, 0.5, 0.5]), liked) == 0.0
    assert expected_calibration_error(np.array([0.9, 0.9, 0.9, 0.9]), liked) == pytest.approx(0.4)


def test_the_table_has_the_means(records: list[dict[str, Any]]) -> None:
    other = [{**each, "seed": 2, "precision": 0.0} for each in records]
    written = tables([*records, *other])
    (line,) = [line for line in written.splitlines() if line.startswith(f"| {OURS} |")]
    assert line.split("|")[3].strip() == "0.50"
    assert "{1, 3}" in written and "seeds 1, 2" in written


def test_the_command_appends_and_reports(
    easy: Stock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "stock", lambda *_: easy)
    out = tmp_path / "cells.jsonl"
    assert command.main(["--taste", "1,3", "--labels", "10", "--out", str(out)]) == 0
    assert len([json.loads(line) for line in out.read_text().splitlines()]) == 1 + len(RIVALS)
    assert command.main(["--report", str(out)]) == 0
    assert f"| {OURS} |" in capsys.readouterr().out
    assert command.main([]) == 2
