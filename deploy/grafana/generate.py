"""Writes the dashboards' JSON into the chart; with --check only says what is out of date."""

from __future__ import annotations

import sys
from pathlib import Path

import capacity
import engine
import overview
import queues
import training
from board import Board, as_json

BOARDS: tuple[Board, ...] = (overview.BOARD, engine.BOARD, training.BOARD, queues.BOARD, capacity.BOARD)
FOLDER = Path(__file__).parents[2] / "helm" / "papa" / "files" / "dashboards"


if __name__ == "__main__":
    files = {FOLDER / f"{board.name}.json": as_json(board) for board in BOARDS}
    stale = {path: text for path, text in files.items() if not path.exists() or path.read_text() != text}
    if "--check" in sys.argv:
        sys.exit("\n".join(f"out of date, run `make generated`: {path}" for path in stale) or 0)
    for path, text in stale.items():
        path.write_text(text)
        print(f"wrote {path}")
