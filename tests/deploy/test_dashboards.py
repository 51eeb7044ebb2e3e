"""The dashboards' JSON is that of the code, and Grafana can lay them out."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.deploy.rules import DASHBOARDS, ROOT

BOARDS = sorted(path.stem for path in DASHBOARDS.glob("*.json"))


@pytest.mark.parametrize("script", ["deploy/grafana/generate.py", "docs/generate.py"])
def test_what_is_generated_is_up_to_date(script, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    done = subprocess.run([sys.executable, str(ROOT / script), "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_there_is_a_dashboard_for_each_concern():
    assert BOARDS == ["capacity", "engine", "overview", "queues", "training"]


@pytest.mark.parametrize("name", BOARDS)
def test_panels_say_what_they_show_and_do_not_overlap(name):
    board = json.loads((DASHBOARDS / f"{name}.json").read_text())
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        cell = panel["gridPos"]
        cells = {(cell["x"] + x, cell["y"] + y) for x in range(cell["w"]) for y in range(cell["h"])}
        assert not cells & taken and max(x for x, _ in cells) < 24, panel["title"]
        taken |= cells
        if panel["type"] != "row":
            assert panel["description"] and panel["targets"], panel["title"]
            assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
            assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
