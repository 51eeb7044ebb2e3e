"""One cell: a simulated user with a hidden taste labels pages of ten, and each system is measured on its next page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from benchmarks.catalogue.ours import Ours, catalogue_of
from benchmarks.catalogue.rivals import RIVALS, Floats, Recommending
from benchmarks.catalogue.stock import Stock
from papa.noise import Domain, Noise

PAGE = 10
"""Items of a page, and so labels of a round."""
BINS = 10
OURS = "PAPA"


@dataclass(frozen=True)
class Cell:
    """`labels` are the numbers of labels after which the next page is measured. `flipped` is the share of labels that
    say the opposite."""

    dataset: str
    taste: tuple[int, ...]
    labels: tuple[int, ...] = (10, 20, 50, 100)
    seed: int = 0
    flipped: float = 0.0


def simulate(cell: Cell, stock: Stock) -> Iterator[dict[str, Any]]:
    """A record for each system and number of labels."""
    features = stock.features.double().numpy()
    z = (features - features.mean(0)) / (features.std(0) + 1e-6)
    systems: dict[str, Recommending] = {OURS: Ours(stock, catalogue_of(stock), cell.seed)}
    systems |= {name: kind(z, cell.seed) for name, kind in RIVALS.items()}
    for name, system in systems.items():
        yield from _measured(cell, stock, name, system)


def _measured(cell: Cell, stock: Stock, name: str, system: Recommending) -> Iterator[dict[str, Any]]:
    liked = torch.isin(stock.classes, torch.tensor(cell.taste)).numpy()
    errors, shown = Noise(cell.seed, Domain.USER), list[int]()
    for labels in range(PAGE, max(cell.labels) + 1, PAGE):
        page = system.page(PAGE, exploring=True)
        slips = (errors.uniform((len(page),)) < cell.flipped).numpy()
        system.learn(page, np.where(liked[page] ^ slips, 1.0, -1.0).tolist())
        shown += page
        if labels in cell.labels:
            record = {"system": name, **asdict(cell), "labels": labels, "shown_liked": float(liked[shown].mean())}
            yield (
                record | _of_page(stock, cell, system.page(PAGE, exploring=False)) | _calibration(system, liked, shown)
            )


def _of_page(stock: Stock, cell: Cell, page: Sequence[int]) -> dict[str, Any]:
    """Precision@10: the share of the page that is liked. Coverage@10: the share of the liked classes that are on the
    page (subtopic recall: Zhai, Cohen & Lafferty, SIGIR 2003), as many as a page can hold."""
    classes = stock.classes[list(page)].tolist()
    hits = [each for each in classes if each in cell.taste]
    return {
        "precision": len(hits) / PAGE,
        "coverage": len(set(hits)) / min(len(cell.taste), PAGE),
        "classes": classes,
    }


def _calibration(system: Recommending, liked: np.ndarray, shown: Sequence[int]) -> dict[str, Any]:
    """The expected calibration error over all items without a label."""
    rest = np.setdiff1d(np.arange(len(liked)), shown)
    chances = system.chances(rest.tolist())
    return {"ece": None if chances is None else expected_calibration_error(chances, liked[rest])}


def expected_calibration_error(chances: Floats, liked: np.ndarray) -> float:
    """Σ_b (n_b / n) |mean chance in bin b − share of likes in bin b|, over ten bins of equal width (Naeini, Cooper &
    Hauskrecht, AAAI 2015). Shape: [n], [n] bool."""
    bins = np.minimum((chances * BINS).astype(int), BINS - 1)
    gaps = [abs(chances[bins == each].sum() - liked[bins == each].sum()) for each in range(BINS)]
    return float(sum(gaps) / len(chances))
