"""What simulated people say of a page, and the loop that they are in."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from benchmarks.alignment import people
from benchmarks.alignment.runs import Run
from benchmarks.alignment.served import Served


class Shades:
    """An oracle whose class of a picture is the value of its first pixel, in tenths."""

    def classify(self, images):
        return (images[:, 0, 0, 0] * 10).round().long()


def page(*kinds, brightness=0.0):
    images = torch.full((len(kinds), 1, 8, 8), brightness)
    images[:, 0, 0, 0] = torch.tensor(kinds) / 10
    return images


@pytest.mark.parametrize(
    ("kind", "brightness", "grade"), [(3, 0.0, 1.0), (3, -0.9, 0.1), (4, 0.0, 0.1), (4, -0.9, -1.0), (3, -0.45, 0.5)]
)
def test_who_grades_looks_at_kind_and_brightness(kind, brightness, grade):
    found = people.Graded(Shades(), (3,)).labels(page(kind, brightness=brightness))
    assert found.tolist() == pytest.approx([grade], abs=0.11)
    assert found[0] != 0 and float(10 * found[0]) == pytest.approx(round(float(10 * found[0])))


def test_who_tires_dislikes_what_filled_the_page_before():
    who = people.Tires(Shades(), (3, 5))
    assert who.labels(page(3, 3, 5, 4)).tolist() == [1, 1, 1, -1]
    assert who.labels(page(3, 5, 5, 4)).tolist() == [-1, 1, 1, -1], "half of the page before was of kind 3"
    assert who.labels(page(3, 5, 4, 4)).tolist() == [1, -1, -1, -1]
    assert who.alone(page(3, 5, 4)).tolist() == [1, 1, -1]


def test_who_clicks_never_dislikes_and_looks_less_often_further_down():
    who = people.Clicks(Shades(), (3,), seed=1)
    pages = torch.stack([who.labels(page(3, 4, 3, 4, 4, 4, 4, 4, 3)) for _ in range(2000)])
    assert not pages[:, [1, 3]].any() and not (pages < 0).any()
    assert pages[:, [0, 2, 8]].mean(0).tolist() == pytest.approx([1, 3**-0.5, 1 / 3], abs=0.04)


def test_only_what_is_labelled_is_learnt_and_records_come_after_every_few_pages(monkeypatch):
    learnt = []
    system = SimpleNamespace(learn=lambda shown, grades, page: learnt.append((page, grades.tolist())))
    monkeypatch.setattr(people, "Ours", SimpleNamespace)
    monkeypatch.setattr(people, "build", lambda shared, run: system)
    monkeypatch.setattr(people, "measures", lambda *_: {"success": 0.25, "coverage": None})

    def serve(system, seeds, rule, teaching):
        shown = page(*[3 if seed % 3 == 0 else 4 for seed in seeds])
        return Served(shown, torch.zeros(len(seeds)), shown, torch.zeros(len(seeds)), drawn=2 * len(seeds))

    monkeypatch.setattr(people, "serve", serve)
    who = people.Clicks(Shades(), (3,), page=4, pages=6)
    world = SimpleNamespace(oracle=Shades())
    records = list(people.cell(who, Run("ours", (3,), 5), world, samples=30, every=4))
    assert [record["page"] for record in records] == [0, 4, 6]
    assert records[-1]["labels"] == sum(len(grades) for _, grades in learnt) > 0
    assert all(grade == 1 for _, grades in learnt for grade in grades)
    assert records[0]["draws"] == 2 and records[0]["mean_grade"] == pytest.approx(-1 / 3, abs=0.05)
    assert people.table([{"who": "clicks", "taste": "3", "seed": 5, **records[-1]}]).splitlines()[-1].count("–") == 1
