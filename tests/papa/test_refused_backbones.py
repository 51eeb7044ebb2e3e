"""Every refusal of docs/backbones.md: one line that says what is wrong, where it lies, and what would work."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from diffusers import DDIMScheduler, LDMPipeline, VQModel
from safetensors.torch import load_file, save_file

from papa.denoiser import BackboneRefused, load_denoiser
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

WEIGHTS = "diffusion_pytorch_model.safetensors"


def refusal(folder: Path) -> str:
    """The message, which is one line and names the place."""
    with pytest.raises(BackboneRefused) as caught:
        load_denoiser(str(folder))
    message = str(caught.value)
    assert "\n" not in message
    assert str(folder) in message
    return message


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Whole pipelines to be spoilt."""
    root = tmp_path_factory.mktemp("originals")
    made = {"text": stable_diffusion, "xl": stable_diffusion_xl, "pixels": pixels, "classes": diffusion_transformer}
    return {name: Path(saved(make(), root / name)) for name, make in made.items()}


@pytest.fixture
def copy(originals: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    return lambda name: Path(shutil.copytree(originals[name], tmp_path / name))


def test_a_latent_pipeline_with_a_vq_vae(tmp_path: Path) -> None:
    vq = VQModel(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        num_vq_embeddings=8,
    )
    LDMPipeline(vqvae=vq, unet=pixels().unet, scheduler=DDIMScheduler()).save_pretrained(tmp_path)
    message = refusal(tmp_path)
    assert "LDMPipeline" in message and "StableDiffusionPipeline" in message
    (tmp_path / "model_index.json").unlink()
    assert "LDMPipeline" in refusal(tmp_path)


def test_pixart_under_the_class_name_of_dit(copy: Callable[[str], Path]) -> None:
    folder = copy("classes")
    edit(folder / "transformer" / "config.json", _class_name="Transformer2DModel", norm_type="ada_norm_single")
    message = refusal(folder)
    assert "ada_norm_zero" in message and "PixArt" in message
    edit(folder / "model_index.json", _class_name="PixArtAlphaPipeline")
    assert "PixArtAlphaPipeline" in refusal(folder)


def test_a_tokenizer_without_its_merges_would_spell_every_word(copy: Callable[[str], Path]) -> None:
    folder = copy("text")
    published_tokenizer(folder / "tokenizer")
    load_denoiser(str(folder))
    (folder / "tokenizer" / "merges.txt").write_text("#version: 0.2\n")
    message = refusal(folder)
    assert "0 merges where the vocabulary needs" in message
    assert str(folder / "tokenizer") in message


@pytest.mark.parametrize("left", ["nothing", "spiece.model", "vocab.txt", "vocab.json", "merges.txt"])
def test_a_tokenizer_without_its_vocabulary(left: str, copy: Callable[[str], Path]) -> None:
    folder = copy("text")
    tokenizer = folder / "tokenizer"
    model = json.loads((tokenizer / "tokenizer.json").read_text())["model"]
    (tokenizer / "tokenizer.json").unlink()
    content = {"spiece.model": "x" * 100, "vocab.txt": "[PAD]\n[UNK]\na\n", "vocab.json": json.dumps(model["vocab"])}
    if left != "nothing":
        (tokenizer / left).write_text(content.get(left, "#version: 0.2\n"))
    message = refusal(folder)
    assert str(tokenizer) in message and "vocab.json and merges.txt" in message


def test_tokenizers_of_another_kind_or_of_another_text_encoder(copy: Callable[[str], Path]) -> None:
    folder = copy("text")
    file = folder / "tokenizer" / "tokenizer.json"
    whole = json.loads(file.read_text())
    file.write_text(json.dumps(whole | {"model": {"type": "WordPiece", "vocab": {"a": 0}}}))
    assert "byte-pair" in refusal(folder)
    file.write_text(json.dumps(whole | {"model": whole["model"] | {"vocab": {}}}))
    assert str(file) in refusal(folder)
    file.write_text(json.dumps(whole))
    edit(folder / "tokenizer" / "tokenizer_config.json", tokenizer_class="T5Tokenizer")
    assert "CLIPTokenizer" in refusal(folder)


def test_a_vocabulary_that_is_not_the_text_encoders(copy: Callable[[str], Path]) -> None:
    folder = copy("text")
    file = folder / "tokenizer" / "tokenizer.json"
    whole = json.loads(file.read_text())
    added = {token["content"] for token in whole["added_tokens"]}
    vocabulary = whole["model"]["vocab"]
    kept = dict(sorted(vocabulary.items(), key=lambda item: item[1])[: len(vocabulary) // 2])
    kept |= {token: vocabulary[token] for token in added if token in vocabulary}
    file.write_text(json.dumps(whole | {"model": whole["model"] | {"vocab": kept, "merges": []}}))
    assert "copy the tokenizer that the text encoder was trained with" in refusal(folder)


def test_a_text_encoder_of_another_class(copy: Callable[[str], Path]) -> None:
    folder = copy("text")
    edit(folder / "text_encoder" / "config.json", architectures=["XLMRobertaModel"], model_type="xlm-roberta")
    message = refusal(folder)
    assert "XLMRobertaModel" in message and "CLIPTextModel" in message
    folder = copy("xl")
    edit(folder / "model_index.json", text_encoder_2=["transformers", "T5EncoderModel"])
    message = refusal(folder)
    assert "T5EncoderModel" in message and "CLIPTextModelWithProjection" in message


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_a_tensor_is_missing(part: str, copy: Callable[[str], Path]) -> None:
    folder = copy("text")
    file = next((folder / part).glob("*.safetensors"))
    tensors = load_file(file)
    gone = max(name for name in tensors if name.endswith("weight"))
    tensors.pop(gone)
    save_file(tensors, file, metadata={"format": "pt"})
    message = refusal(folder)
    assert str(folder / part) in message
    assert gone.removeprefix("text_model.") in message and "copy" in message


def test_an_adapter_was_left_attached(copy: Callable[[str], Path]) -> None:
    folder = copy("text")
    tensors = load_file(folder / "unet" / WEIGHTS)
    renamed = {name.replace("to_q.weight", "to_q.base_layer.weight"): tensor for name, tensor in tensors.items()}
    save_file(renamed, folder / "unet" / WEIGHTS, metadata={"format": "pt"})
    assert "merge the adapter and save again" in refusal(folder)


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"_class_name": "DPMSolverMultistepScheduler", "prediction_type": "flow_prediction"}, "epsilon, v_prediction"),
        ({"prediction_type": "v-prediction"}, "epsilon, v_prediction, sample"),
        ({"prediction_type": None}, "epsilon, v_prediction, sample"),
        ({"use_flow_sigmas": True}, "beta_schedule"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "DDPM or DDIM"),
        ({"rescale_betas_zero_snr": True}, "v_prediction or sample"),
        ({"num_train_timesteps": 50}, "1000 are usual"),
        ({"num_train_timesteps": 400}, "1000 are usual"),
        ({"beta_start": 0.5, "beta_end": 1.5}, "betas"),
    ],
)
def test_schedules_that_nothing_can_be_drawn_or_learnt_with(
    change: dict[str, Any], wanted: str, copy: Callable[[str], Path]
) -> None:
    folder = copy("text")
    edit(folder / "scheduler" / "scheduler_config.json", **change)
    message = refusal(folder)
    assert str(folder / "scheduler") in message and wanted in message


FOUR_LEVELS: dict[str, Any] = {
    "block_out_channels": (16, 16, 32, 32),
    "down_block_types": ("DownBlock2D",) * 4,
    "up_block_types": ("UpBlock2D",) * 4,
}


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        *(({"in_channels": n, "out_channels": n}, "1 (grey) or 3 (RGB)") for n in (2, 4, 5)),
        ({"in_channels": 6}, "as many"),
        ({"out_channels": 6}, "twice as many with a learned variance"),
        ({"sample_size": None}, "write the size"),
        ({"sample_size": 28} | FOUR_LEVELS, "multiples of 8"),
        ({"num_class_embeds": 10}, "x, t and a prompt alone"),
        ({"class_embed_type": "timestep"}, "x, t and a prompt alone"),
    ],
)
def test_pixel_unets_of_another_shape(options: dict[str, Any], wanted: str, tmp_path: Path) -> None:
    message = refusal(Path(saved(pixels(**options), tmp_path)).resolve())
    assert str(tmp_path / "unet" / "config.json") in message and wanted in message


def test_a_text_unet_that_takes_a_class(tmp_path: Path) -> None:
    pipe = stable_diffusion()
    pipe.register_modules(unet=text_unet(num_class_embeds=10))
    assert "num_class_embeds" in refusal(Path(saved(pipe, tmp_path)))


@pytest.mark.parametrize("damage", ["lfs", "truncated", "shard", "gone"])
def test_weight_files_that_are_not_whole(damage: str, copy: Callable[[str], Path]) -> None:
    folder = copy("text")
    file = folder / "unet" / WEIGHTS
    if damage == "lfs":
        file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 12\n")
    elif damage == "truncated":
        file.write_bytes(file.read_bytes()[:-1000])
    else:
        file.unlink()
    if damage == "shard":
        stable_diffusion().unet.save_pretrained(folder / "unet", max_shard_size="40KB")
        min((folder / "unet").glob("*-00002-*")).unlink()
    remedy = {"lfs": "git lfs pull", "truncated": "copy it again", "shard": "copy it again", "gone": WEIGHTS}[damage]
    message = refusal(folder)
    assert str(folder / "unet") in message and remedy in message


def test_a_component_is_missing(copy: Callable[[str], Path]) -> None:
    folder = copy("text")
    shutil.rmtree(folder / "vae")
    assert str(folder / "vae") in refusal(folder)


def test_an_unknown_pipeline_and_the_refiner(copy: Callable[[str], Path]) -> None:
    folder = copy("xl")
    edit(folder / "model_index.json", requires_aesthetics_score=True)
    assert "base pipeline" in refusal(folder)
    edit(folder / "model_index.json", _class_name="StableDiffusionInpaintPipeline")
    message = refusal(folder)
    assert "StableDiffusionInpaintPipeline" in message and "StableDiffusionXLPipeline" in message


@pytest.mark.parametrize("content", ["{", "[]", '"x"'])
def test_an_index_that_is_no_object(content: str, copy: Callable[[str], Path]) -> None:
    folder = copy("pixels")
    (folder / "model_index.json").write_text(content)
    assert "model_index.json" in refusal(folder)
