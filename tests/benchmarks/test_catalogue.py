"""The benchmark of catalogues: its measures by hand, its rivals and ours on a world that is easy to tell apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.catalogue import __main__ as command
from benchmarks.catalogue import tuning
from benchmarks.catalogue.report import tables
from benchmarks.catalogue.rivals import RIVALS, Logistic
from benchmarks.catalogue.simulate import OURS, PAGES, SYSTEMS, Cell, bins_of, calibration_error, simulate, standardised
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


def test_every_system_is_measured_on_its_next_pages(records: list[dict[str, Any]]) -> None:
    assert [(each["system"], each["labels"]) for each in records] == [
        (name, labels) for name in SYSTEMS for labels in (10, 30)
    ]
    for each in records:
        hits = [[one for one in page if one in (1, 3)] for page in each["classes"]]
        assert [len(page) for page in each["classes"]] == [10] * PAGES
        assert each["precision"] == pytest.approx(sum(map(len, hits)) / PAGES / 10)
        assert each["coverage"] == pytest.approx(sum(len(set(page)) / 2 for page in hits) / PAGES)


def test_who_learns_finds_what_is_liked_and_all_kinds_of_it(records: list[dict[str, Any]]) -> None:
    known = {each["system"]: each for each in records if each["labels"] == 30}
    assert (known[OURS]["precision"], known[OURS]["coverage"]) == (1.0, 1.0)
    assert all(known[name]["precision"] > 0.8 for name in RIVALS if name != "random")
    assert [known[name]["coverage"] for name in ("LinUCB, diverse", "logistic, diverse")] == [1.0] * 2
    assert known["random"]["precision"] < 0.8


def test_a_cell_is_the_same_each_time_and_only_slips_change_it(easy: Stock, records: list[dict[str, Any]]) -> None:
    """What is measured on the way must not matter, so the cell that is run again is measured at its end alone."""
    last = [each for each in records if each["labels"] == 30]
    assert list(simulate(Cell("easy", (1, 3), (30,), seed=1), easy)) == last
    flipped = list(simulate(Cell("easy", (1, 3), (30,), seed=1, flipped=0.4), easy))
    assert all(each["ece"] != before["ece"] for each, before in zip(flipped, last, strict=True) if before["ece"])


def test_the_pages_that_are_measured_repeat_nothing(easy: Stock) -> None:
    x = standardised(easy)
    for rival in RIVALS.values():
        system = rival(x)
        first = system.page(10, 1, exploring=True)
        system.learn(first, [1.0, -1.0] * 5)
        second = system.page(10, 2, exploring=False)
        third = system.page(10, 3, exploring=False, beside=second)
        assert len({*first, *second, *third}) == 30


def test_a_diverse_rival_takes_less_of_the_likeliest_kind(easy: Stock) -> None:
    """Of two liked kinds, one with nine labels and one with one."""
    liked = [*range(40, 49), 120]
    disliked = [*range(5), *range(80, 85), *range(160, 165)]
    taken = {}
    for name in ("LinUCB", "LinUCB, diverse"):
        system = RIVALS[name](standardised(easy))
        system.learn([*liked, *disliked], [1.0] * len(liked) + [-1.0] * len(disliked))
        classes = easy.classes[system.page(10, 1, exploring=False)].tolist()
        taken[name] = classes.count(3)
    assert taken["LinUCB"] < taken["LinUCB, diverse"]


def test_calibration_by_hand() -> None:
    def error(*chances: float) -> float:
        return calibration_error([bins_of(np.array(chances), np.array([True, True, False, False]))])

    assert error(1.0, 1.0, 0.0, 0.0) == 0.0
    assert error(0.95, 0.95, 0.05, 0.05) == pytest.approx(0.05)
    assert error(0.5, 0.5, 0.5, 0.5) == 0.0
    assert error(0.9, 0.9, 0.9, 0.9) == pytest.approx(0.4)


def of(system: str, taste: int, **fields: Any) -> dict[str, Any]:
    usual = {"dataset": "easy", "flipped": 0.0, "labels": 10, "seed": 1, "coverage": 1.0, "precision": 0.5, "ece": None}
    return {**usual, "system": system, "taste": [taste], "recommended": None, **fields}


def every(taste: int, seed: int = 1, **ours: Any) -> list[dict[str, Any]]:
    return [of(OURS, taste, seed=seed, **ours), *(of(name, taste, seed=seed) for name in SYSTEMS[1:])]


def line(written: str, start: str) -> str:
    return next(each for each in written.splitlines() if each.startswith(start))


def test_the_table_has_means_over_tastes_and_their_intervals() -> None:
    """The two seeds of a taste are one figure: (0.8 + 1.0) / 2, 0.7 and 0.5, and t(2) 0.2 / √3 ≈ 0.49."""
    records = [*every(1, precision=0.8), *every(1, precision=1.0, seed=2), *every(2, precision=0.7), *every(3)]
    assert line(tables(records), f"| {OURS}") == f"| {OURS} | 0.70 ± 0.49 |"


def test_a_cell_counts_once_and_what_is_missing_is_named() -> None:
    records = [*every(1), *every(2, precision=0.1), *every(2, precision=0.1)]
    assert line(tables(records), f"| {OURS}") == f"| {OURS} | 0.30 |"
    assert "Missing" not in tables(records)
    assert line(tables([*records, *every(1, seed=2)]), "Missing") == "Missing: easy {2} seed 2 (all)."
    assert line(tables(records[:-1] + every(3)[:-1]), "Missing") == "Missing: easy {3} seed 1 (random)."
    with pytest.raises(ValueError, match="differ"):
        tables([*records, of(OURS, 1, precision=0.9)])


def test_the_report_says_who_is_ahead() -> None:
    records = [*every(1), *every(2)]
    assert line(tables(records), "Ahead of") == f"Ahead of {OURS}: none."
    records = [{**each, "precision": 0.75} if each["system"] == "logistic" else each for each in records]
    assert line(tables(records), "Ahead of") == f"Ahead of {OURS}: logistic after 10 (+0.25)."


def test_the_calibration_of_what_is_recommended_is_of_all_pages_of_a_taste() -> None:
    """In one bin, too high by 0.2 and too low by 0.1 are too high by 0.05 together."""
    up, down = ([[0, 0.0, 0]] * 9 + [[10, 9.0, likes]] for likes in (7, 10))
    records = [*every(1, recommended=up), *every(1, seed=2, recommended=down)]
    rows = [each for each in tables(records).splitlines() if each.startswith(f"| {OURS}")]
    assert rows[-1] == f"| {OURS} | 0.05 |"


def test_constants_are_tried_and_the_best_are_printed_first(
    easy: Stock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mild, strong = (tuning.trial(Logistic, {"penalty": p}, Cell("easy", (1, 3), (10, 20)), easy) for p in (0.1, 1e6))
    assert [each["labels"] for each in mild] == [10, 20]
    assert mild[-1]["ece"] != strong[-1]["ece"]
    monkeypatch.setattr(tuning, "measures", lambda *given: (given[-1]["penalty"], 0.5))
    monkeypatch.setattr(tuning, "GRID", {Logistic: {"penalty": (0.1, 0.3)}})
    assert tuning.main([]) == 0
    assert [each.split(":")[0] for each in capsys.readouterr().out.splitlines()] == [
        "Logistic penalty=0.3",
        "Logistic penalty=0.1",
    ]


def test_rivals_are_tuned_on_tastes_that_are_not_reported() -> None:
    for dataset, tastes in tuning.TASTES.items():
        assert not set(tastes) & set(tuning.REPORTED[dataset])


def test_the_command_appends_and_reports(
    easy: Stock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "stock", lambda *_: easy)
    out = tmp_path / "cells.jsonl"
    assert command.main(["--taste", "1,3", "--labels", "10", "--out", str(out)]) == 0
    assert len([json.loads(line) for line in out.read_text().splitlines()]) == len(SYSTEMS)
    assert command.main(["--report", str(out)]) == 0
    assert f"| {OURS} |" in capsys.readouterr().out
    with out.open("a") as more:
        more.write(json.dumps({**json.loads(out.read_text().splitlines()[0]), "precision": -1.0}) + "\n")
    assert command.main(["--report", str(out)]) == 2
    assert "differ" in capsys.readouterr().err
    assert command.main([]) == 2
