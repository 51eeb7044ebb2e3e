"""`make dashboards`: the documentation's pictures of the dashboards, from minutes of simulated shoppers."""

from __future__ import annotations

import importlib
import os
import sys
import threading
import time
from collections.abc import Sequence
from concurrent import futures
from pathlib import Path

import pytest
from papa_serving.client import Client, FeedbackEvent
from papa_serving.contracts.errors import PapaError
from papa_serving.demo.shopper import Shopper

from papa.oracle import load_oracle
from tests.absent import reason
from tests.deploy.live_service import live_service
from tests.deploy.rules import ROOT

sys.path.insert(0, str(ROOT / "deploy" / "grafana"))
pictures = importlib.import_module("pictures")

FOLDER = os.environ.get("DASHBOARDS", "")
MINUTES = float(os.environ.get("MINUTES", "5"))
TASTES: Sequence[set[int]] = ({5, 7, 9}, {0, 3, 8}, {1, 4}, {2, 6})
"""Classes that each shopper likes; they come one after the other."""
SETTINGS = {
    "trainer.min_labels": "8",
    "trainer.max_wait": "1",
    "feedback.partitions": "8",
    "generator.exploration": "0.1",
}


@pytest.mark.skipif(not FOLDER, reason=reason("takes pictures of the dashboards, for six minutes", "make dashboards"))
def test_take_pictures(tmp_path: Path) -> None:
    with live_service(tmp_path, "fashion_mnist", **SETTINGS) as live:
        closed = threading.Event()
        with futures.ThreadPoolExecutor() as pool:
            arrivals = [
                pool.submit(shop, live.gateway, f"shopper-{number}", taste, 12 * MINUTES * number, closed)
                for number, taste in enumerate(TASTES)
            ]
            try:
                time.sleep(60 * MINUTES)
                for board in pictures.BOARDS:
                    pictures.draw(board, pictures.Source(live.prometheus), MINUTES, Path(FOLDER) / f"{board.name}.png")
            finally:
                closed.set()
        assert all(arrival.result() for arrival in arrivals), "everybody has rated something"


def shop(address: str, user: str, taste: set[int], after: float, closed: threading.Event) -> int:
    """Looks, rates, waits for what was learnt, and again; how many rounds."""
    closed.wait(after)
    shopper, rounds, revision = Shopper(load_oracle(), taste), 0, ""
    with Client(address) as client:
        while not closed.is_set():
            items = client.generate(user, 8).items
            liked = shopper.likes(items)
            events = [
                FeedbackEvent(user, 1.0 if like else -1.0, item_id=item.item_id)
                for item, like in zip(items, liked, strict=True)
            ]
            client.submit_feedback(events)
            rounds += 1
            try:
                revision = client.wait_for_revision(user, after=revision, timeout=60.0).name
            except PapaError:
                continue  # the gate may have refused it; the next round brings more
    return rounds
