"""Every layout of docs/backbones.md with its files as the hub has them: it loads as the plain folder does."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import PNDMScheduler

from papa.adapter import new_adapter
from papa.denoiser import Denoiser, load_denoiser, resolve_backbone
from papa.pipeline_folder import choose_weights, wanted_files
from papa.sampler import sample
from tests.papa.pipelines import (
    diffusion_transformer,
    pixels,
    published_tokenizer,
    saved,
    stable_diffusion,
    stable_diffusion_xl,
    text_unet,
)
from tests.papa.support import edit


def drawn(denoiser: Denoiser, prompt: str = "") -> torch.Tensor:
    """One picture. It is finite, and an adapter for the backbone can be made."""
    conditions = denoiser.conditions([prompt], 3.0)
    picture = denoiser.decode(sample(denoiser, [1], None, steps=3, conditions=conditions))
    assert picture.shape == (1, *denoiser.image_shape)
    assert bool(picture.isfinite().all())
    assert len(new_adapter(denoiser).weights) == denoiser.layout.size
    return picture


def at_the_root(folder: Path, safetensors: bool = True) -> Path:
    """The layout of google/ddpm-*: the files of unet/ and scheduler/ beside model_index.json."""
    pixels().save_pretrained(folder, safe_serialization=safetensors)
    for part in ("unet", "scheduler"):
        for file in (folder / part).iterdir():
            file.rename(folder / file.name)
        (folder / part).rmdir()
    return folder


@pytest.mark.parametrize("safetensors", [True, False])
def test_a_ddpm_repository_with_its_files_at_the_root(safetensors: bool, tmp_path: Path) -> None:
    published = load_denoiser(str(at_the_root(tmp_path / "root", safetensors)))
    assert published.backbone_hash == load_denoiser(saved(pixels(), tmp_path / "folders")).backbone_hash
    drawn(published)


def test_weights_that_would_run_code_are_refused_unrun(tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
            return os.mkdir, (str(tmp_path / "harm"),)

    folder = at_the_root(tmp_path / "root", safetensors=False)
    torch.save({"conv_in.weight": Harm()}, folder / "diffusion_pytorch_model.bin")
    with pytest.raises(ValueError, match="cannot be loaded"):
        load_denoiser(str(folder))
    assert not (tmp_path / "harm").exists()


def test_a_pixel_pipeline_in_folders_without_an_index(tmp_path: Path) -> None:
    folder = Path(saved(pixels(), tmp_path))
    expected = load_denoiser(str(folder)).backbone_hash
    (folder / "model_index.json").unlink()
    assert load_denoiser(str(folder)).backbone_hash == expected


def test_stable_diffusion_1_as_published(tmp_path: Path) -> None:
    """PNDM, a tokenizer of vocab.json and merges.txt, a safety checker that is not used."""
    pipe = stable_diffusion()
    plain = load_denoiser(saved(pipe, tmp_path / "plain"))
    pipe.scheduler = PNDMScheduler.from_config(pipe.scheduler.config, skip_prk_steps=True, set_alpha_to_one=False)
    folder = Path(saved(pipe, tmp_path / "published"))
    published_tokenizer(folder / "tokenizer")
    checker = {"safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"]}
    edit(folder / "model_index.json", **checker, feature_extractor=["transformers", "CLIPImageProcessor"])
    published = load_denoiser(str(folder))
    assert published.backbone_hash == plain.backbone_hash
    assert not torch.allclose(drawn(published, "a red boot"), drawn(published, "sneaker"), atol=1e-3)


def test_stable_diffusion_2_as_published(tmp_path: Path) -> None:
    """v-prediction, heads by level, linear projections, a text encoder with gelu."""
    pipe = stable_diffusion("v_prediction")
    pipe.register_modules(unet=text_unet(attention_head_dim=(1, 2), use_linear_projection=True))
    folder = Path(saved(pipe, tmp_path))
    edit(folder / "text_encoder" / "config.json", hidden_act="gelu")
    denoiser = load_denoiser(str(folder))
    assert denoiser.prediction == "v_prediction"
    assert not torch.allclose(drawn(denoiser, "a red boot"), drawn(denoiser, "sneaker"), atol=1e-3)


def test_stable_diffusion_xl_as_published(tmp_path: Path) -> None:
    folder = Path(saved(stable_diffusion_xl(), tmp_path))
    plain = load_denoiser(str(folder))
    for name in ("tokenizer", "tokenizer_2"):
        published_tokenizer(folder / name)
    published = load_denoiser(str(folder))
    assert published.backbone_hash == plain.backbone_hash
    assert not torch.allclose(drawn(published, "a red boot"), drawn(published, "sneaker"), atol=1e-3)


def test_a_tokenizer_without_a_length_has_the_text_encoders(tmp_path: Path) -> None:
    folder = Path(saved(stable_diffusion(), tmp_path))
    expected = load_denoiser(str(folder)).conditions(["a red boot"])
    edit(folder / "tokenizer" / "tokenizer_config.json", model_max_length=...)
    found = load_denoiser(str(folder)).conditions(["a red boot"])
    assert expected is not None and found is not None
    name = "encoder_hidden_states"
    torch.testing.assert_close(found.asked[name], expected.asked[name])


def test_dit_as_published_is_a_transformer_2d_model(tmp_path: Path) -> None:
    folder = Path(saved(diffusion_transformer(), tmp_path))
    plain = load_denoiser(str(folder))
    edit(
        folder / "transformer" / "config.json",
        _class_name="Transformer2DModel",
        _diffusers_version="0.12.0.dev0",
        norm_type="ada_norm_zero",
    )
    edit(folder / "model_index.json", transformer=["diffusers", "Transformer2DModel"])
    published = load_denoiser(str(folder))
    assert published.backbone_hash == plain.backbone_hash
    assert not torch.allclose(drawn(published, "ankle boot"), drawn(published, "5"), atol=1e-4)


def test_a_learned_variance_is_left_out(tmp_path: Path) -> None:
    folder = Path(saved(pixels(out_channels=6), tmp_path))
    edit(folder / "scheduler" / "scheduler_config.json", variance_type="learned_range")
    denoiser = load_denoiser(str(folder))
    assert denoiser.sample_shape == (3, 16, 16)
    drawn(denoiser)


@pytest.mark.parametrize("kind", ["pixels", "text"])
def test_a_unet_without_a_middle(kind: str, tmp_path: Path) -> None:
    pipe = pixels(mid_block_type=None) if kind == "pixels" else stable_diffusion()
    if kind == "text":
        pipe.register_modules(unet=text_unet(mid_block_type=None))
    denoiser = load_denoiser(saved(pipe, tmp_path))
    drawn(denoiser, "boot")
    assert denoiser.feature_size == denoiser.features(torch.zeros(1, *denoiser.sample_shape)).shape[1]


def test_a_unet_without_attention(tmp_path: Path) -> None:
    plain = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2, "add_attention": False}
    drawn(load_denoiser(saved(pixels(**plain), tmp_path)))


@pytest.mark.parametrize(
    "how",
    [{"variant": "fp16"}, {"safe_serialization": False}, {"max_shard_size": "40KB"}],
    ids=["fp16", "bin", "shards"],
)
def test_each_kind_of_weight_file_gives_the_same_backbone(how: dict[str, Any], tmp_path: Path) -> None:
    pipe = stable_diffusion()
    pipe.save_pretrained(tmp_path / "other", **how)
    names = {path.name for path in (tmp_path / "other" / "unet").iterdir()}
    assert "diffusion_pytorch_model.safetensors" not in names
    expected = load_denoiser(saved(pipe, tmp_path / "plain")).backbone_hash
    assert load_denoiser(str(tmp_path / "other")).backbone_hash == expected


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """somebody/tiny-ddpm in a hub cache as huggingface_hub lays it out: blobs, and a snapshot of relative links."""
    from huggingface_hub import constants

    model, commit = tmp_path / "hub" / "models--somebody--tiny-ddpm", "0" * 40
    (model / "blobs").mkdir(parents=True)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(commit)
    source, snapshot = at_the_root(tmp_path / "source"), model / "snapshots" / commit
    snapshot.mkdir(parents=True)
    for number, file in enumerate(sorted(source.iterdir())):
        blob = model / "blobs" / f"{number:040x}"
        shutil.copy(file, blob)
        (snapshot / file.name).symlink_to(os.path.relpath(blob, snapshot))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return snapshot


@pytest.mark.parametrize("revision", ["", "@main", "@" + "0" * 40])
def test_a_hub_id_with_or_without_a_revision_is_the_snapshot(hub: Path, revision: str) -> None:
    assert resolve_backbone(f"somebody/tiny-ddpm{revision}") == hub


def test_a_snapshot_of_links_loads(hub: Path, tmp_path: Path) -> None:
    expected = load_denoiser(str(tmp_path / "source")).backbone_hash
    assert load_denoiser("somebody/tiny-ddpm@main").backbone_hash == expected


def test_paths_with_a_tilde_or_a_space_are_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    spaced = tmp_path / "my models" / "tiny ddpm"
    saved(pixels(), spaced)
    assert resolve_backbone("~/my models/tiny ddpm") == resolve_backbone(str(spaced)) == spaced
    drawn(load_denoiser("~/my models/tiny ddpm"))


@pytest.mark.parametrize("name", ["~/no-such-folder", "no such/folder", "org/name@", "org//name", "org/name@a b", "\0"])
def test_what_is_no_hub_id_never_reaches_the_hub(name: str) -> None:
    with pytest.raises(FileNotFoundError, match="nor a diffusers folder nor a hub id"):
        resolve_backbone(name)


def test_of_a_repository_one_set_of_weights_each_is_downloaded() -> None:
    weights = "diffusion_pytorch_model"
    root = ["README.md", "config.json", "model_index.json", "scheduler_config.json", f"{weights}.bin"]
    assert set(wanted_files(root)) == {*root[1:]}
    text = ["model_index.json", "unet/config.json", f"unet/{weights}.safetensors", f"vae/{weights}.fp16.safetensors"]
    more = ["pruned.safetensors", f"unet/{weights}.bin", f"unet/{weights}.fp16.safetensors", f"vae_onnx/{weights}.bin"]
    assert set(wanted_files([*text, *more, "safety_checker/model.safetensors"])) == {*text}


def test_training_weights_are_the_last_choice() -> None:
    stem = "diffusion_pytorch_model"
    chosen = choose_weights([f"{stem}.non_ema.safetensors", f"{stem}.fp16.bin"], stem)
    assert chosen is not None and chosen.files == (f"{stem}.fp16.bin",)
