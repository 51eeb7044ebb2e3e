"""The backbone's hash: what reaches the picture changes it, what does not leaves it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from papa.denoiser import load_denoiser
from papa.denoiser.identity import HASH_VERSION
from tests.papa.pipelines import diffusion_transformer, pixels, saved, stable_diffusion, stable_diffusion_xl
from tests.papa.support import edit

Loaded = dict[str, tuple[Path, str, str]]


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """By kind: its folder, its hash and the hash of its weights alone."""
    root = tmp_path_factory.mktemp("originals")
    made = {"text": stable_diffusion, "xl": stable_diffusion_xl, "pixels": pixels, "classes": diffusion_transformer}
    found = {}
    for name, make in made.items():
        denoiser = load_denoiser(saved(make(), root / name))
        found[name] = (root / name, denoiser.backbone_hash, denoiser.weights_hash)
    return found


UNET, VAE, TEXT, SCHEDULER = (
    "unet/config.json",
    "vae/config.json",
    "text_encoder/config.json",
    "scheduler/scheduler_config.json",
)


@pytest.mark.parametrize(
    ("kind", "file", "change"),
    [
        ("text", UNET, {"attention_head_dim": 4}),
        ("text", UNET, {"norm_num_groups": 2}),
        ("text", UNET, {"act_fn": "gelu"}),
        ("text", UNET, {"flip_sin_to_cos": False}),
        ("text", UNET, {"sample_size": 16}),
        ("text", VAE, {"scaling_factor": 0.25}),
        ("text", VAE, {"shift_factor": 0.1}),
        ("text", VAE, {"norm_num_groups": 2}),
        ("text", TEXT, {"hidden_act": "gelu"}),
        ("text", TEXT, {"num_attention_heads": 4}),
        ("text", TEXT, {"layer_norm_eps": 0.1}),
        ("text", SCHEDULER, {"prediction_type": "v_prediction"}),
        ("text", SCHEDULER, {"beta_end": 0.02}),
        ("text", "tokenizer/tokenizer_config.json", {"model_max_length": 6}),
        ("xl", "model_index.json", {"force_zeros_for_empty_prompt": False}),
        ("xl", "text_encoder_2/config.json", {"hidden_act": "gelu"}),
        ("xl", "text_encoder_2/config.json", {"eos_token_id": 5}),
        ("pixels", UNET, {"sample_size": 32}),
        ("pixels", UNET, {"attention_head_dim": 4}),
        ("pixels", UNET, {"act_fn": "gelu"}),
        ("classes", "transformer/config.json", {"num_attention_heads": 4, "attention_head_dim": 4}),
        ("classes", "transformer/config.json", {"activation_fn": "gelu"}),
        ("classes", "model_index.json", {"id2label": {"3": "sneaker", "5": "boot"}}),
    ],
)
def test_what_reaches_the_picture_changes_the_hash(
    kind: str, file: str, change: dict[str, Any], originals: Loaded, tmp_path: Path
) -> None:
    folder, original, _ = originals[kind]
    changed = shutil.copytree(folder, tmp_path / "changed")
    edit(changed / file, **change)
    assert load_denoiser(str(changed)).backbone_hash != original


def test_another_vocabulary_changes_the_hash(originals: Loaded, tmp_path: Path) -> None:
    folder, original, weights = originals["text"]
    changed = shutil.copytree(folder, tmp_path / "changed")
    file = changed / "tokenizer" / "tokenizer.json"
    whole = json.loads(file.read_text())
    vocabulary = whole["model"]["vocab"]
    first, second = [word for word in vocabulary if word.endswith("</w>")][:2]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    file.write_text(json.dumps(whole))
    denoiser = load_denoiser(str(changed))
    assert denoiser.backbone_hash != original
    assert denoiser.weights_hash == weights


@pytest.mark.parametrize(
    ("kind", "file", "change"),
    [
        ("text", UNET, {"_diffusers_version": "0.6.0", "_name_or_path": "/somewhere/else"}),
        ("text", UNET, {"dropout": 0.1}),
        ("text", UNET, {"only_cross_attention": False, "conv_in_kernel": 3}),
        ("text", VAE, {"_diffusers_version": "0.6.0", "force_upcast": False}),
        ("text", TEXT, {"transformers_version": "4.22.0.dev0", "attention_dropout": 0.1}),
        ("text", SCHEDULER, {"_class_name": "PNDMScheduler", "steps_offset": 0, "clip_sample": True}),
        ("text", "model_index.json", {"_diffusers_version": "0.6.0", "_name_or_path": "/somewhere/else"}),
        ("pixels", UNET, {"_diffusers_version": "0.1.1", "_name_or_path": "/somewhere/else"}),
    ],
)
def test_what_does_not_reach_the_picture_leaves_the_hash(
    kind: str, file: str, change: dict[str, Any], originals: Loaded, tmp_path: Path
) -> None:
    folder, original, _ = originals[kind]
    changed = shutil.copytree(folder, tmp_path / "changed")
    edit(changed / file, **change)
    assert load_denoiser(str(changed)).backbone_hash == original


def test_the_hash_tells_its_kind_and_the_former_one_is_known(originals: Loaded) -> None:
    for _, present, former in originals.values():
        assert present.startswith(HASH_VERSION)
        assert not former.startswith(HASH_VERSION)
