"""The command that measures what is served: selection as the service does it, and its figures."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks.alignment import served
from papa.selection import Rule

RESULTS = Path(__file__).parents[2] / "docs" / "results"
SEEDS = list(range(100, 130))


@pytest.fixture
def system(monkeypatch):
    """Of every item the first draw is surely disliked and any other surely liked."""
    asked = []

    def drawn(system, wanted):
        asked.extend(wanted)
        return [served.Drawn(torch.tensor([float(seed % 997)]), 0.0 if seed in SEEDS else 1.0) for seed, _ in wanted]

    monkeypatch.setattr(served, "drawn", drawn)
    head = SimpleNamespace(labels=10, questions=())
    return SimpleNamespace(adapter=SimpleNamespace(head=head), asked=asked)


def test_what_is_rejected_is_drawn_again_within_the_bound(system):
    found = served.serve(system, SEEDS, Rule(overdraw=1.5), teaching=0.0)
    assert found.drawn == 45 == len(system.asked)
    assert found.raw_chances.tolist() == [0.0] * 30
    assert found.chances.tolist().count(1.0) == 15
    generous = served.serve(system, SEEDS, Rule(overdraw=2.0), teaching=0.0)
    assert generous.chances.tolist() == [1.0] * 30
    assert generous.raw[:, 0].tolist() == [float(seed) for seed in SEEDS]


def test_without_overdraw_or_a_head_the_first_draw_is_served(system):
    found = served.serve(system, SEEDS, Rule(overdraw=1.0), teaching=0.0)
    assert torch.equal(found.samples, found.raw) and found.drawn == 30
    system.adapter.head = None
    unknown = served.serve(system, SEEDS, Rule(overdraw=2.0), teaching=1.0)
    assert torch.equal(unknown.samples, unknown.raw) and unknown.drawn == 30
    assert not any(bare for _, bare in system.asked)


def test_items_that_teach_come_from_the_backbone_once_something_is_known(system):
    served.serve(system, SEEDS, Rule(overdraw=2.0), teaching=0.1)
    assert sum(bare for _, bare in system.asked) == 3
    system.asked.clear()
    system.adapter.head.questions = (7001, 7002, 7003)
    found = served.serve(system, SEEDS, Rule(overdraw=2.0), teaching=0.1)
    questions = [seed for seed, bare in system.asked if bare]
    assert len(questions) == 3 and set(questions) <= {7001, 7002, 7003}
    assert all((found.samples == each % 997).sum() == questions.count(each) for each in questions)


def test_a_first_draw_is_compared_with_what_is_typical_of_its_region(system, monkeypatch):
    def drawn(system, wanted):
        return [served.Drawn(torch.zeros(1), 0.3, 0.3 if seed % 2 else 0.9) for seed, _ in wanted]

    monkeypatch.setattr(served, "drawn", drawn)
    found = served.serve(system, SEEDS[:10], Rule(overdraw=2.0, steepness=1e9), teaching=0.0)
    assert found.drawn > 10, "of the even seeds all are rejected"


@pytest.mark.parametrize("name", ["served.jsonl", "served_before.jsonl"])
def test_the_page_shows_the_records_beside_it(name):
    lines = [json.loads(line) for line in (RESULTS / name).read_text().splitlines()]
    assert len(lines) > 10
    text = (RESULTS / "served.md").read_text()
    for row in served.table(lines).splitlines():
        assert row in text, row


def test_a_setting_is_read_as_the_value_that_it_says():
    assert served._setting("steps=8") == ("steps", 8)
    assert served._setting("lora_alpha=8.0") == ("lora_alpha", 8.0)
