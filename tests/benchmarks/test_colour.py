"""The same code on 32×32 RGB: images in JPEG files, an oracle and a backbone of one's own, as CIFAR-10 has them."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from PIL import Image

from benchmarks.alignment.grid import EXPERIMENTS
from benchmarks.alignment.runs import Run
from benchmarks.alignment.simulate import simulate
from benchmarks.alignment.systems.registry import build
from benchmarks.alignment.world import FILES, world
from papa.backbone.datasets import load_npz
from papa.backbone.train import new_unet
from papa.oracle import save_oracle, train_oracle


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A data folder with a few JPEG images, and the backbone and oracle of `cifar10`."""
    data = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    files, classes = [], np.arange(40) % 10
    for kind in classes:
        picture = np.clip(random.normal(25 * kind, 20, (32, 32, 3)), 0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "JPEG", quality=95)
        files.append(buffer.getvalue())
    offsets = np.cumsum([0, *map(len, files)])
    np.savez(data / FILES["cifar10"][0], data=np.frombuffer(b"".join(files), np.uint8), offsets=offsets, y=classes)
    torch.manual_seed(0)
    new_unet(32, 3, (8, 16), 1).save_pretrained(data / "cifar10" / "unet")
    DDPMScheduler().save_pretrained(data / "cifar10" / "scheduler")
    save_oracle(train_oracle(load_npz(data / FILES["cifar10"][0]), epochs=1), data / "cifar10" / "oracle.safetensors")
    return data


@pytest.mark.parametrize("score", ["", "jpeg"])
def test_a_colour_data_set_runs_through_the_whole_loop(folder, score):
    shared = world("cifar10", folder, False)
    run = Run("ours", (0, 1, 8, 9), dataset="cifar10", rounds=1, labels=4, score=score, samples=4, final_samples=100,
              evaluated=(0,), overrides=(("draw_steps", 2), ("steps", 1)))  # fmt: skip
    records = list(simulate(run, shared, build(shared, run)))
    assert records[-1]["sheet"].shape[1:] == (3, 32, 32)
    assert sum(records[-1]["classes"]) == 100
    assert "mean_grade" in records[-1] if score else records[-1]["frechet"] > 0


def test_without_its_backbone_the_error_names_what_is_missing(folder, tmp_path):
    (tmp_path / FILES["cifar10"][0]).symlink_to(folder / FILES["cifar10"][0])
    with pytest.raises(FileNotFoundError, match="oracle"):
        world("cifar10", tmp_path, False)


def test_the_row_is_in_the_grid():
    runs = EXPERIMENTS["cifar10"]()
    assert {run.dataset for run in runs} == {"cifar10"}
    assert {run.system for run in runs} == {"base", "ours"}
