"""How well the text backbone does what it is asked: a sheet of every word, and what the oracle sees in it.

    python -m benchmarks.alignment.words

Writes words.png (eight samples a word) and words.json into docs/results/latent. "recognised" is the share of a word's
samples that the oracle puts into the word's class, "frechet" the distance of samples of the generic word to the test
images in the oracle's features; those of the test images after the autoencoder are what a perfect U-Net would get.
"""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.alignment.runner import machine
from benchmarks.alignment.world import DATA, images_of
from papa.alignment import frechet_distance
from papa.backbone.datasets import LabelledImages, load_npz
from papa.backbone.sheet import picture
from papa.backbone.words import FASHION_WORDS, GENERIC
from papa.denoiser import Denoiser, fast_type, load_denoiser
from papa.noise import Domain, Noise
from papa.oracle import Oracle, load_oracle
from papa.sampler import sample

ROOT = Path(__file__).parents[2]
SHOWN = 8


def main() -> None:
    options = _options()
    torch.set_num_threads(1)
    denoiser, oracle = load_denoiser(options.backbone, autocast=fast_type("cpu")), load_oracle()
    words = {word: _drawn(denoiser, word, options.samples, options.guidance) for word in FASHION_WORDS}
    options.out.mkdir(parents=True, exist_ok=True)
    sheet = torch.cat([each[:SHOWN] for each in words.values()])
    picture(sheet, columns=2 * SHOWN).save(options.out / "words.png")
    test = load_npz(images_of("fashion_mnist", options.data), "test")
    record = {
        "backbone": denoiser.backbone_hash, "date": datetime.now(UTC).date().isoformat(), "machine": machine(),
        "samples": options.samples, "guidance": options.guidance,
        "recognised": {
            word: float((oracle.classify(each) == index).double().mean())
            for index, (word, each) in enumerate(words.items())
        },
    }  # fmt: skip
    record |= _against_real(denoiser, oracle, test, options.samples * len(words))
    (options.out / "words.json").write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))


def _drawn(denoiser: Denoiser, prompt: str, count: int, guidance: float) -> Tensor:
    conditions = denoiser.conditions([prompt] * count, guidance)
    return denoiser.decode(sample(denoiser, list(range(count)), None, "dpmpp_2m", 12, conditions=conditions))


def _against_real(denoiser: Denoiser, oracle: Oracle, test: LabelledImages, count: int) -> dict[str, Any]:
    some = Noise(0, Domain.ORDER).permutation(len(test.x))[:count]
    real, rebuilt = test.x[some], denoiser.decode(denoiser.encode(test.x[some]))
    reference = _features(oracle, test.x)
    return {
        "accuracy_real": float((oracle.classify(real) == test.y[some]).double().mean()),
        "accuracy_rebuilt": float((oracle.classify(rebuilt) == test.y[some]).double().mean()),
        "frechet_rebuilt": frechet_distance(_features(oracle, rebuilt), reference),
        "frechet": frechet_distance(_features(oracle, _drawn(denoiser, GENERIC, count, 1.0)), reference),
    }


@torch.no_grad()
def _features(oracle: Oracle, x: Tensor) -> Tensor:
    return torch.cat([oracle.features(chunk) for chunk in x.split(256)])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="fashion_mnist_text")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the .npz files")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results" / "latent")
    parser.add_argument("--guidance", type=float, default=2.0)
    parser.add_argument("--samples", type=int, default=32, help="of each word")
    return parser.parse_args()


if __name__ == "__main__":
    main()
