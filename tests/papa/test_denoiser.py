from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from papa.denoiser import Denoiser, load_denoiser, resolve_backbone
from papa.lora import LoraConfig
from papa.schedule import NoiseSchedule
from tests.papa.support import tiny_denoiser, tiny_unet


@pytest.mark.parametrize("prediction", ["v_prediction", "sample"])
def test_every_kind_of_prediction_becomes_epsilon(prediction: str) -> None:
    schedule = NoiseSchedule.linear()
    denoiser = Denoiser(tiny_unet(), schedule, (1, 8, 8), prediction, LoraConfig(rank=1))  # type: ignore[arg-type]
    t = torch.tensor([10, 400, 900])
    x0, eps = torch.randn(2, 3, 1, 8, 8).unbind()
    x = schedule.add_noise(x0, eps, t)
    bar = schedule.signal(t, x)
    target = {"v_prediction": bar.sqrt() * eps - (1 - bar).sqrt() * x0, "sample": x0}[prediction]
    torch.testing.assert_close(denoiser._to_epsilon(target, x, t), eps, atol=1e-3, rtol=1e-3)


def test_loads_a_diffusers_folder(backbone_folder: Path) -> None:
    denoiser = load_denoiser(str(backbone_folder), LoraConfig(rank=2))
    assert denoiser.sample_shape == (1, 8, 8)
    assert denoiser.backbone_hash == load_denoiser(str(backbone_folder), LoraConfig(rank=4)).backbone_hash
    x, t = torch.randn(1, 1, 8, 8), torch.tensor([3])
    with torch.no_grad():
        torch.testing.assert_close(denoiser.epsilon(x, t), tiny_denoiser().epsilon(x, t))


def test_the_hash_does_not_depend_on_the_precision_it_is_loaded_in(backbone_folder: Path) -> None:
    full = load_denoiser(str(backbone_folder), LoraConfig(rank=2))
    half = load_denoiser(str(backbone_folder), LoraConfig(rank=2), dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16
    assert half.backbone_hash == full.backbone_hash


def test_loads_a_hub_id_from_the_hub_cache(
    backbone_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real hub client resolves the id; the snapshot lies in its cache, laid out as a download leaves it."""
    from huggingface_hub import constants

    cache = tmp_path / "hub"
    model, commit = cache / "models--somebody--tiny-ddpm", "0" * 40
    shutil.copytree(backbone_folder, model / "snapshots" / commit)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert resolve_backbone("somebody/tiny-ddpm") == model / "snapshots" / commit
    same = load_denoiser(str(backbone_folder), LoraConfig(rank=2))
    assert load_denoiser("somebody/tiny-ddpm", LoraConfig(rank=2)).backbone_hash == same.backbone_hash


@pytest.mark.parametrize("name", ["no_such_backbone", "/no/such/folder"])
def test_a_missing_backbone_is_one_clear_error(name: str) -> None:
    with pytest.raises(FileNotFoundError, match="no backbone"):
        load_denoiser(name, LoraConfig())


@pytest.mark.parametrize(
    ("options", "tolerance"), [({"channels_last": True}, 1e-4), ({"autocast": torch.bfloat16}, 0.1)]
)
def test_faster_ways_compute_the_same_with_adapters(backbone_folder: Path, options: dict, tolerance: float) -> None:
    plain = load_denoiser(str(backbone_folder), LoraConfig(rank=2))
    fast = load_denoiser(str(backbone_folder), LoraConfig(rank=2), **options)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, *plain.sample_shape, generator=generator)
    adapters = 0.2 * torch.randn(3, plain.layout.size, generator=generator)
    t = torch.tensor([10, 300, 600, 900])
    expected = plain.epsilon(x, t, adapters)
    assert not torch.allclose(expected, plain.epsilon(x, t), atol=tolerance)
    torch.testing.assert_close(fast.epsilon(x, t, adapters), expected, rtol=0, atol=tolerance)


def test_features_describe_samples(denoiser: Denoiser) -> None:
    x0 = torch.rand(3, 1, 8, 8) * 2 - 1
    features = denoiser.features(x0)
    assert features.shape == (3, denoiser.feature_size)
    assert not torch.allclose(features[0], features[1])
    torch.testing.assert_close(features[1:2], denoiser.features(x0[1:2]), atol=1e-5, rtol=1e-4)
