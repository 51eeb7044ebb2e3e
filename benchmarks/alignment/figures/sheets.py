"""Figures 3, 4 and 16: the same noise before the first interaction step and after the last, several preference sets."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from PIL import Image

from benchmarks.alignment.aggregate import Loaded, Records
from benchmarks.alignment.archive import RAW, RESULTS, completed
from benchmarks.alignment.figures.drawing import everything, taste
from benchmarks.alignment.runner import raw_file
from benchmarks.alignment.runs import Run


def sheets(loaded: Mapping[str, Loaded], raw: Path, results: Path) -> Iterator[Path]:
    """One picture for the tastes of each data set and one for the fine-grained objective, where runs left sheets."""
    for name, title, runs in (
        ("sheets_fashion_mnist", "Fashion-MNIST, ours", _on("fashion_mnist", loaded["main"])),
        ("sheets_mnist", "MNIST, ours", _on("mnist", loaded["main"])),
        ("sheets_latent", "The text backbone, asked for clothing", _of("gated", loaded["latent"])),
        ("sheets_jpeg", "Graded by compressed size, ours", loaded["jpeg"]),
    ):
        found = [(run, records, raw_file(raw, run).with_suffix(".png")) for run, records in runs.items()]
        found = [each for each in found if each[2].exists()]
        if found:
            yield _draw(results / f"{name}.png", title, found)


def _of(system: str, runs: Loaded) -> Loaded:
    return {run: records for run, records in runs.items() if run.system == system}


def _on(dataset: str, runs: Loaded) -> Loaded:
    return {run: records for run, records in runs.items() if run.dataset == dataset}


def _draw(path: Path, title: str, found: list[tuple[Run, Records, Path]]) -> Path:
    figure, axes = plt.subplots(len(found), 1, figsize=(11, 1.5 * len(found) + 0.4), squeeze=False)
    for axis, (run, records, sheet) in zip(axes[:, 0], found, strict=True):
        axis.imshow(Image.open(sheet), cmap="gray", aspect="equal")
        axis.set_title(f"{_liked(run)}: above before, below after {records[-1]['labels']} labels", fontsize=9)
        axis.axis("off")
    figure.suptitle(title, fontsize=11)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def _liked(run: Run) -> str:
    if run.score:
        return "large liked" if run.score.endswith("-") else "small liked"
    return taste(run.taste)


def main() -> None:
    """Draws from the records that are there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--raw", type=Path, default=RAW, help="folder of the runs' records and sheets")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the pictures")
    options = parser.parse_args()
    for path in sheets(everything(completed(options.raw)), options.raw, options.out):
        print(path)


if __name__ == "__main__":
    main()
