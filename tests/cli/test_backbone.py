"""`papa backbone train` on a handful of images."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.cli.conftest import Papa
from tests.papa.support import save_tiny_backbone


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The model is too small for more, and on a busy machine threads would mostly wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def small_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run draws a pool as its last act; hundreds of samples would say no more than a few."""
    monkeypatch.setattr("papa_serving.cli.backbone_commands.POOL_COUNT", 4)


@pytest.fixture
def backbone_folder(tmp_path: Path) -> Path:
    return save_tiny_backbone(tmp_path / "tiny")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    images, labels = random.integers(0, 256, (16, 8, 8), dtype=np.uint8), np.zeros(16, dtype=np.uint8)
    path = tmp_path / "data.npz"
    np.savez(path, x_train=images, y_train=labels, x_test=images, y_test=labels)
    return path


def test_a_run_is_served_goes_on_and_keeps_its_configuration(papa: Papa, data: Path) -> None:
    arguments = ["backbone", "train", str(data), "--out", "run", "--sheet-every", "0"]
    first = papa(*arguments, "--batch-size", "2", "--steps", "1")
    assert first.code == 0, first.err
    assert "papa up --backbone run/pipeline" in first.out
    assert Path("run/pipeline/unet/config.json").is_file()
    assert Path("run/pipeline/pool.safetensors").is_file()
    assert papa(*arguments, "--batch-size", "2", "--steps", "2").code == 0
    assert [json.loads(line)["step"] for line in Path("run/log.jsonl").read_text().splitlines()] == [1, 2]
    changed = papa(*arguments, "--batch-size", "4", "--steps", "2")
    assert changed.code == 1
    assert "another configuration" in changed.err
    assert "--out" in changed.err


def test_the_shape_of_the_network_is_given(papa: Papa, data: Path) -> None:
    arguments = ["backbone", "train", str(data), "--sheet-every", "0", "--batch-size", "2", "--steps", "1"]
    made = papa(*arguments, "--channels", "16,32", "--layers", "2", "--out", "wide")
    assert made.code == 0, made.err
    shape = json.loads(Path("wide/pipeline/unet/config.json").read_text())
    assert (shape["block_out_channels"], shape["layers_per_block"]) == ([16, 32], 2)


@pytest.mark.parametrize(
    ("channels", "why"), [("wide", "no list"), ("16,20", "multiple of 16"), ("16,16,16,16,16", "halved 4 times")]
)
def test_a_shape_that_cannot_be_built_is_told(papa: Papa, data: Path, channels: str, why: str) -> None:
    refused = papa("backbone", "train", str(data), "--channels", channels)
    assert refused.code == 2
    assert why in " ".join(refused.err.split())


def test_a_pool_is_drawn_for_a_folder_that_has_none(papa: Papa, backbone_folder: Path) -> None:
    made = papa("backbone", "pool", str(backbone_folder), "--count", "3", "--json")
    assert made.code == 0, made.err
    assert json.loads(made.out) == {"pool": str(backbone_folder / "pool.safetensors"), "samples": 3}
    assert (backbone_folder / "pool.safetensors").stat().st_mode & 0o044  # the trainer may be another user


def test_a_pool_of_no_backbone_is_one_line(papa: Papa, tmp_path: Path) -> None:
    refused = papa("backbone", "pool", str(tmp_path))
    assert refused.code == 1
    assert "no pool for" in refused.err


def test_what_is_no_data_set_is_one_line(papa: Papa, tmp_path: Path) -> None:
    assert "nothing.npz is missing" in papa("backbone", "train", str(tmp_path / "nothing.npz")).err
    (tmp_path / "text.npz").write_text("text")
    assert "cannot be read as images" in papa("backbone", "train", str(tmp_path / "text.npz")).err


def test_a_latent_run_makes_a_pipeline(papa: Papa, data: Path) -> None:
    arguments = ["backbone", "train-latent", str(data), "--out", "run", "--batch-size", "2", "--json"]
    made = papa(*arguments, "--vae-steps", "1", "--steps", "1")
    assert made.code == 0, made.err
    assert json.loads(made.out)["backbone"] == "run/pipeline"
    assert Path("run/pipeline/text_encoder/config.json").is_file()


def test_what_holds_no_adapter_is_not_written(papa: Papa, tmp_path: Path) -> None:
    refused = papa("backbone", "lora", str(tmp_path))
    assert refused.code != 0
    assert "papa users export" in refused.err


def test_the_size_of_a_backbone_is_told_without_its_weights(papa: Papa, backbone_folder: Path) -> None:
    (backbone_folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    told = papa("backbone", "size", str(backbone_folder), "--card", "16")
    assert told.code == 0, told.err
    assert "left of a card of 16 GiB" in told.out
    size = json.loads(papa("backbone", "size", str(backbone_folder), "--rank", "8", "--json").out)
    assert size["rank"] == 8
    assert size["memory"]["float32"]["weights_bytes"] == 4 * size["parameters"] > 0
    refused = papa("backbone", "size", str(backbone_folder / "unet"))
    assert refused.code == 1
    assert "no backbone" in refused.err
