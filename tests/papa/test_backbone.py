from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDPMPipeline
from PIL import Image
from safetensors.torch import load_file

from papa.backbone.datasets import LabelledImages, load_npz
from papa.backbone.report import backbone_report
from papa.backbone.train import TrainConfig, TrainProgress, train
from papa.denoiser import SHIPPED, load_denoiser
from papa.lora import LoraConfig
from papa.oracle import Oracle, load_oracle
from tests.absent import SHARED, needs_shared
from tests.papa.support import save_tiny_backbone

CONFIG = TrainConfig(steps=6, batch_size=4, channels=(8, 16), warmup_steps=2)
FASHION = SHARED / "data" / "fashion_mnist.npz"


@pytest.fixture(scope="module")
def data() -> LabelledImages:
    generator = torch.Generator().manual_seed(0)
    return LabelledImages(torch.rand(20, 1, 8, 8, generator=generator) * 2 - 1, torch.arange(20) % 10)


def test_a_run_that_was_interrupted_ends_where_an_uninterrupted_one_does(data: LabelledImages, tmp_path: Path) -> None:
    reports: list[TrainProgress] = []
    # The learning rate follows the length of the run: both runs are planned for six steps.
    whole = train(data, tmp_path / "whole", CONFIG, reports.append)
    with pytest.raises(KeyboardInterrupt):
        train(_StopsAfter(data, 3), tmp_path / "parts", CONFIG, reports.append, save_every=1)
    assert json.loads((tmp_path / "parts" / "state" / "run.json").read_text())["step"] == 3
    parts = train(data, tmp_path / "parts", CONFIG, reports.append)
    name = "unet/diffusion_pytorch_model.safetensors"
    first, second = load_file(whole / name), load_file(parts / name)
    for key in first:
        torch.testing.assert_close(first[key], second[key], atol=2e-3, rtol=0)
    assert reports[-1].step == 6


class _StopsAfter(LabelledImages):
    """Images whose user presses Ctrl-C after some batches."""

    def __init__(self, data: LabelledImages, batches: int) -> None:
        images, left = data.x, [batches]

        class Images(torch.Tensor):
            def __getitem__(self, rows: object) -> torch.Tensor:  # type: ignore[override]
                if not left[0]:
                    raise KeyboardInterrupt
                left[0] -= 1
                return images[rows]  # type: ignore[index]

        super().__init__(images.as_subclass(Images), data.y)


def test_a_run_may_start_from_the_weights_of_another_backbone(data: LabelledImages, tmp_path: Path) -> None:
    first = train(data, tmp_path / "first", CONFIG, lambda _: None)
    name = "unet/diffusion_pytorch_model.safetensors"
    # So small a rate moves nothing that half precision keeps.
    still = replace(CONFIG, start=str(first), steps=1, learning_rate=1e-12)
    second = train(data, tmp_path / "second", still, lambda _: None)
    for key, value in load_file(first / name).items():
        assert torch.equal(load_file(second / name)[key], value), key
    with pytest.raises(ValueError, match="other channels or layers"):
        train(data, tmp_path / "third", replace(still, channels=(16, 32)), lambda _: None)


def test_another_configuration_is_not_resumed(data: LabelledImages, tmp_path: Path) -> None:
    train(data, tmp_path, replace(CONFIG, steps=1), lambda _: None)
    with pytest.raises(ValueError, match="another configuration"):
        train(data, tmp_path, replace(CONFIG, batch_size=5), lambda _: None)


def test_the_result_is_a_standard_diffusers_folder(data: LabelledImages, tmp_path: Path) -> None:
    folder = train(data, tmp_path, replace(CONFIG, steps=1), lambda _: None)
    assert DDPMPipeline.from_pretrained(folder).unet.config.sample_size == 8
    assert load_denoiser(str(folder), LoraConfig(rank=1)).sample_shape == (1, 8, 8)


def test_every_layout_of_data_is_read(tmp_path: Path) -> None:
    images, y = np.random.default_rng(0).integers(0, 256, (12, 8, 8), dtype=np.uint8), np.arange(12) % 3
    np.savez(tmp_path / "split.npz", x_train=images[:8], y_train=y[:8], x_test=images[8:], y_test=y[8:])
    np.savez(tmp_path / "whole.npz", x=images, y=y)
    files = [_jpeg(image) for image in images]
    offsets = np.cumsum([0] + [len(file) for file in files])
    np.savez(tmp_path / "jpeg.npz", data=np.frombuffer(b"".join(files), np.uint8), offsets=offsets, y=y)

    assert load_npz(tmp_path / "split.npz", "test").x.shape == (4, 1, 8, 8)
    train_part, test_part = (load_npz(tmp_path / "whole.npz", split) for split in ("train", "test"))
    assert (len(train_part.x), len(test_part.x)) == (10, 2)
    coloured = load_npz(tmp_path / "jpeg.npz")
    assert coloured.x.shape == (12, 3, 8, 8)
    assert coloured.y.tolist() == y.tolist()
    exact = load_npz(tmp_path / "split.npz").x
    assert exact.min() >= -1 and exact.max() <= 1
    assert torch.equal(((exact[0, 0] + 1) * 127.5).round().byte(), torch.from_numpy(images[0]))


def _jpeg(image: np.ndarray) -> bytes:
    import io

    buffer = io.BytesIO()
    Image.fromarray(np.stack([image] * 3, axis=-1)).save(buffer, "JPEG")
    return buffer.getvalue()


def test_what_is_shipped_is_small() -> None:
    sizes = {path.name: path.stat().st_size for path in (SHIPPED / "fashion_mnist").rglob("*.safetensors")}
    assert sizes["oracle.safetensors"] < 1_000_000
    assert sizes["diffusion_pytorch_model.safetensors"] < 8_000_000


@needs_shared("data/fashion_mnist.npz", "the Fashion-MNIST data set")
def test_the_shipped_oracle_classifies_the_test_set() -> None:
    test = load_npz(FASHION, "test")
    accuracy = (load_oracle().classify(test.x) == test.y).double().mean()
    assert accuracy >= 0.91


def test_the_report_does_not_take_a_sorted_data_set_for_one_class(tmp_path: Path) -> None:
    """Real images are compared with real ones: a small distance although the classes lie one after another."""

    torch.manual_seed(0)
    bright = (torch.arange(400) // 40).float() / 5 - 1
    images = LabelledImages(bright.view(-1, 1, 1, 1).expand(400, 1, 8, 8).clone(), torch.arange(400) // 40)
    denoiser = load_denoiser(str(save_tiny_backbone(tmp_path)), LoraConfig(rank=1))
    report = backbone_report(denoiser, Oracle().eval(), images, images, count=64, steps=1)
    spread = backbone_report(
        denoiser, Oracle().eval(), images, LabelledImages(images.x[:40], images.y[:40]), 64, steps=1
    )
    assert report.frechet_real < 0.2 * spread.frechet_real
