"""One cell: a simulated user with a hidden taste labels pages of ten, and each system is measured on its next pages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from statistics import fmean
from typing import Any

import numpy as np
import torch

from benchmarks.catalogue.ours import Ours, catalogue_of
from benchmarks.catalogue.rivals import RIVALS, Floats, Recommending
from benchmarks.catalogue.stock import Stock
from papa.alignment import binned_calibration_error, calibration_bins
from papa.noise import Domain, Noise

PAGE = 10
"""Items of a page, and so labels of a round."""
PAGES = 5
"""Pages that are measured after a number of labels, one after another without labels; each leaves out those before."""
JUDGED = 2_000
"""Items of which the calibration is judged, evenly spread over a larger catalogue."""
OURS = "PAPA"
LESS_DIVERSE = "PAPA, diversity 0.1"
SYSTEMS = (OURS, LESS_DIVERSE, *RIVALS)

Bins = list[tuple[int, float, int]]
"""For each bin of chances: items, the sum of their chances, and how many of them are liked."""


@dataclass(frozen=True)
class Cell:
    """`labels` are the numbers of labels after which the next pages are measured; they change nothing else. `flipped`
    is the share of labels that say the opposite."""

    dataset: str
    taste: tuple[int, ...]
    labels: tuple[int, ...] = (10, 20, 50, 100)
    seed: int = 0
    flipped: float = 0.0


def simulate(cell: Cell, stock: Stock) -> Iterator[dict[str, Any]]:
    """A record for each system and number of labels."""
    x = standardised(stock)
    catalogues = catalogue_of(stock)
    systems: dict[str, Recommending] = {OURS: Ours(stock, catalogues), LESS_DIVERSE: Ours(stock, catalogues, 0.1)}
    systems |= {name: rival(x) for name, rival in RIVALS.items()}
    for name, system in systems.items():
        yield from measured(cell, stock, name, system)


@cache
def standardised(stock: Stock) -> Floats:
    """What the rivals know: features of mean 0 and deviation 1, divided by √F. Shape: [all items, F]."""
    features = stock.features.double().numpy()
    x: Floats = (features - features.mean(0)) / (features.std(0) + 1e-6) / np.sqrt(features.shape[1])
    return x


def measured(cell: Cell, stock: Stock, name: str, system: Recommending) -> Iterator[dict[str, Any]]:
    """The records of one system, which must not have learnt yet."""
    liked = torch.isin(stock.classes, torch.tensor(cell.taste)).numpy()
    errors, shown = Noise(cell.seed, Domain.USER), list[int]()
    for labels in range(PAGE, max(cell.labels) + 1, PAGE):
        page = system.page(PAGE, _seed(cell, labels, 0), exploring=True)
        slips = (errors.uniform((len(page),)) < cell.flipped).numpy()
        system.learn(page, np.where(liked[page] ^ slips, 1.0, -1.0).tolist())
        shown += page
        if labels in cell.labels:
            pages = _next_pages(cell, labels, system)
            record = {"system": name, **asdict(cell), "labels": labels, "shown_liked": float(liked[shown].mean())}
            yield (
                record
                | _of_pages(stock, cell, pages)
                | _calibration(system, liked, shown, [each for page in pages for each in page])
            )


def _seed(cell: Cell, labels: int, page: int) -> int:
    """A seed of its own for each page; 0 is the page that gets labels."""
    return (cell.seed * 10_000 + labels) * 10 + page


def _next_pages(cell: Cell, labels: int, system: Recommending) -> list[list[int]]:
    pages, beside = list[list[int]](), list[int]()
    for number in range(1, PAGES + 1):
        pages.append(system.page(PAGE, _seed(cell, labels, number), exploring=False, beside=beside))
        beside += pages[-1]
    return pages


def _of_pages(stock: Stock, cell: Cell, pages: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Means over the pages. Precision@10: the share of the page that is liked. Coverage@10: the share of the liked
    classes that are on the page (subtopic recall: Zhai, Cohen & Lafferty, SIGIR 2003), as many as a page can hold."""
    classes = [stock.classes[list(page)].tolist() for page in pages]
    hits = [[each for each in page if each in cell.taste] for page in classes]
    return {
        "precision": fmean(len(page) / PAGE for page in hits),
        "coverage": fmean(len(set(page)) / min(len(cell.taste), PAGE) for page in hits),
        "classes": classes,
    }


def _calibration(
    system: Recommending, liked: np.ndarray, shown: Sequence[int], recommended: Sequence[int]
) -> dict[str, Any]:
    """The expected calibration error over the items without a label, and the bins of the recommended ones."""
    rest = np.setdiff1d(np.arange(0, len(liked), max(1, len(liked) // JUDGED)), shown)
    chances, own = system.chances(rest.tolist()), system.chances(recommended)
    return {
        "ece": None if chances is None else calibration_error([bins_of(chances, liked[rest])]),
        "recommended": None if own is None else bins_of(own, liked[list(recommended)]),
    }


def bins_of(chances: Floats, liked: np.ndarray) -> Bins:
    """Ten bins of equal width, as a record holds them. Shape: [n], [n] bool."""
    bins = calibration_bins(torch.from_numpy(chances), torch.from_numpy(liked)).tolist()
    return [(int(items), round(sure, 4), int(likes)) for items, sure, likes in bins]


def calibration_error(parts: Sequence[Bins]) -> float:
    """The calibration error of all items in these bins together."""
    return binned_calibration_error(torch.tensor(parts, dtype=torch.float64).sum(0))
