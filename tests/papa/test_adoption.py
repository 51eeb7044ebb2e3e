"""Adapters that nobody vouches for: what fits is taken as it is, everything else is refused with the reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load, save

from papa.adapter import Adapter, new_adapter
from papa.adoption import Adoption
from papa.config import UpdateConfig
from papa.denoiser import Denoiser
from papa.replay import Replay
from papa.revision_files import AdapterDamagedError, Origin, pack
from papa.taste import FOURIER
from papa.updating import Labels, update
from tests.papa.support import random_adapters, tiny_denoiser, tiny_unet

CONFIG = UpdateConfig(replay_likes=4, replay_dislikes=4)
Files = dict[str, bytes]


@pytest.fixture(scope="module")
def adapter(denoiser: Denoiser) -> Adapter:
    labels = Labels(torch.randint(0, 256, (3, 1, 8, 8), dtype=torch.uint8), torch.tensor([1.0, -1.0, 0.5]))
    trained, _ = update(denoiser, new_adapter(denoiser), labels, UpdateConfig(steps=1), 0)
    return Adapter(random_adapters(denoiser, 1, scale=0.01)[0], trained.replay, head=trained.head)


@pytest.fixture
def files(denoiser: Denoiser, adapter: Adapter) -> Files:
    """An export."""
    return pack(adapter, denoiser.layout, CONFIG, Origin(denoiser.backbone_hash, "", 1.0))


@pytest.fixture(scope="module")
def adoption(denoiser: Denoiser) -> Adoption:
    return Adoption.of(denoiser, CONFIG, 10.0)


def test_an_export_is_adopted_as_it_was(adoption: Adoption, adapter: Adapter, files: Files) -> None:
    adopted = adoption.adopt(files, adoption.denoiser.backbone_hash)
    assert torch.equal(adopted.weights, adapter.weights)
    for name in ("samples", "grades", "features"):
        assert torch.equal(getattr(adopted.replay, name), getattr(adapter.replay, name))


def saved_by_peft(denoiser: Denoiser, folder: Path, frozen: bool = False) -> tuple[torch.nn.Module, Files]:
    """An adapter that plain peft made: with an A of its own, or with the A that a deployment's adapters share."""
    layers = [layer.name for layer in denoiser.layout.layers]
    model = peft.get_peft_model(tiny_unet(), peft.LoraConfig(r=1, lora_alpha=3, target_modules=layers))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
        elif "lora_A" in name and frozen:
            layer = next(layer for layer in denoiser.layout.layers if f".{layer.name}." in name)
            parameter.data.copy_(layer.frozen_a()[:1])
    model.save_pretrained(folder)
    return model, {name: (folder / name).read_bytes() for name in ("adapter_config.json", "adapter_model.safetensors")}


@pytest.mark.parametrize("frozen", [True, False])
def test_what_peft_itself_saves_is_adopted_and_does_the_same(frozen: bool, tmp_path: Path) -> None:
    denoiser = tiny_denoiser(frozen_a=frozen)
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([500, 20])
    model, files = saved_by_peft(denoiser, tmp_path, frozen)
    adopted = Adoption.of(denoiser, CONFIG, 10.0).adopt(files, denoiser.backbone_hash)
    assert len(adopted.replay) == 0
    with torch.no_grad():
        expected, made = model(x, t).sample, denoiser.epsilon(x, t, adopted.weights.expand(2, -1))
        plain = denoiser.epsilon(x, t)
    torch.testing.assert_close(made, expected, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(plain, expected, atol=1e-3), "the adapter does something"


def test_where_all_adapters_share_their_a_one_with_another_is_refused(adoption: Adoption, tmp_path: Path) -> None:
    _, files = saved_by_peft(adoption.denoiser, tmp_path)
    with pytest.raises(AdapterDamagedError, match="its A is not the one") as error:
        adoption.adopt(files, adoption.denoiser.backbone_hash)
    assert error.value.reason == "frozen"


def test_an_export_that_went_through_half_precision_is_adopted(adoption: Adoption, files: Files) -> None:
    halved = {name: tensor.bfloat16() for name, tensor in load(files["adapter_model.safetensors"]).items()}
    given = {"adapter_config.json": files["adapter_config.json"], "adapter_model.safetensors": save(halved)}
    assert adoption.adopt(given, adoption.denoiser.backbone_hash).weights.any()


def test_a_lower_rank_is_padded_and_a_higher_one_refused(files: Files) -> None:
    wide, narrow = (Adoption.of(tiny_denoiser(rank=rank), CONFIG, 10.0) for rank in (3, 1))
    assert wide.adopt(files, wide.denoiser.backbone_hash).weights.shape == (wide.denoiser.layout.size,)
    with pytest.raises(AdapterDamagedError, match="rank 2") as error:
        narrow.adopt(files, narrow.denoiser.backbone_hash)
    assert error.value.reason == "shape"


def test_another_backbones_adapter_is_refused(adoption: Adoption, files: Files) -> None:
    manifest = json.loads(files["manifest.json"])
    foreign = {**files, "manifest.json": json.dumps({**manifest, "backbone": "f" * 64}).encode()}
    for given, backbone in ((files, "f" * 64), (foreign, adoption.denoiser.backbone_hash)):
        with pytest.raises(AdapterDamagedError) as error:
            adoption.adopt(given, backbone)
        assert error.value.reason == "backbone"


def weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Files], None]:
    def damage(files: Files) -> None:
        tensors = load(files["adapter_model.safetensors"])
        change(tensors)
        files["adapter_model.safetensors"] = save(tensors)
        del files["manifest.json"]

    return damage


def config(**fields: Any) -> Callable[[Files], None]:
    def damage(files: Files) -> None:
        changed = json.loads(files["adapter_config.json"]) | fields
        files["adapter_config.json"] = json.dumps(changed).encode()
        del files["manifest.json"]

    return damage


def replay(**fields: torch.Tensor) -> Callable[[Files], None]:
    def damage(files: Files) -> None:
        files["state.safetensors"] = save(load(files["state.safetensors"]) | fields)
        del files["manifest.json"]

    return damage


def head(**fields: torch.Tensor) -> Callable[[Files], None]:
    def damage(files: Files) -> None:
        files["taste.safetensors"] = save(load(files["taste.safetensors"]) | fields)
        del files["manifest.json"]

    return damage


def bytes_of(name: str, data: bytes) -> Callable[[Files], None]:
    def damage(files: Files) -> None:
        files[name] = data
        if name != "manifest.json":
            del files["manifest.json"]

    return damage


def first(tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    return next(iter(tensors.values()))


DAMAGES: dict[str, tuple[str, Callable[[Files], Any]]] = {
    "a flipped bit": ("checksum", lambda files: files.update({"adapter_model.safetensors": b"x"})),
    "no weights": ("checksum", lambda files: files.update({"adapter_model.safetensors": b""})),
    "no configuration": ("format", lambda files: files.pop("adapter_config.json")),
    "garbage for weights": ("format", bytes_of("adapter_model.safetensors", b"\xff" * 100)),
    "an endless header": ("format", bytes_of("adapter_model.safetensors", b"\xff" * 7 + b"\x7f{}")),
    "a pickle": ("format", bytes_of("adapter_model.safetensors", b"\x80\x04K\x00.")),
    "garbage for configuration": ("format", bytes_of("adapter_config.json", b"\xff{")),
    "nested configuration": ("format", bytes_of("adapter_config.json", b"[" * 100_000)),
    "a list for configuration": ("format", bytes_of("adapter_config.json", b"[]")),
    "garbage for a manifest": ("format", bytes_of("manifest.json", b"}")),
    "not a number": ("finite", weights(lambda tensors: first(tensors).view(-1)[0].fill_(float("nan")))),
    "infinite": ("finite", weights(lambda tensors: first(tensors).view(-1)[0].fill_(float("inf")))),
    "huge": ("norm", weights(lambda tensors: next(t for k, t in tensors.items() if "lora_B" in k).fill_(1e6))),
    "another A": ("frozen", weights(lambda tensors: next(t for k, t in tensors.items() if "lora_A" in k).mul_(1.1))),
    "whole numbers": ("shape", weights(lambda t: t.update({next(iter(t)): first(t).to(torch.int32)}))),
    "a missing layer": ("shape", weights(lambda tensors: tensors.pop(next(iter(tensors))))),
    "a layer too many": ("shape", weights(lambda tensors: tensors.update(extra=torch.zeros(1)))),
    "another shape": ("shape", weights(lambda t: t.update({next(iter(t)): torch.zeros(2, 3)}))),
    "a scalar": ("shape", weights(lambda t: t.update({k: torch.tensor(0.0) for k in t}))),
    "another rank than it says": ("shape", config(r=1)),
    "no rank": ("shape", config(r=0)),
    "a rank in words": ("format", config(r="two")),
    "a rank that is true": ("format", config(r=True)),
    "an infinite scale": ("format", config(lora_alpha=float("inf"))),
    "a huge scale": ("finite", config(lora_alpha=1e300)),
    "a scale beyond all floats": ("format", config(lora_alpha=10**400)),
    "floats of eight bits": ("shape", weights(lambda t: t.update({next(iter(t)): first(t).to(torch.float8_e4m3fn)}))),
    "another kind": ("format", config(peft_type="IA3")),
    "dora": ("format", config(use_dora=True)),
    "a bias": ("format", config(bias="all")),
    "grades out of range": ("finite", replay(grades=torch.tensor([1.0, 2.0, 1.0]))),
    "grades of nothing": ("finite", replay(grades=torch.tensor([1.0, float("nan"), 1.0]))),
    "prompts that nobody asked for": (
        "shape",
        replay(prompts=torch.tensor(list(json.dumps(["x" * 100_000, "", ""]).encode()), dtype=torch.uint8)),
    ),
    "fewer grades": ("shape", replay(grades=torch.ones(2))),
    "larger samples": ("shape", replay(samples=torch.zeros(3, 1, 16, 16, dtype=torch.uint8))),
    "samples of floats": ("shape", replay(samples=torch.zeros(3, 1, 8, 8))),
    "more than is remembered": ("shape", replay(samples=torch.zeros(9, 1, 8, 8, dtype=torch.uint8))),
    "a sample for all": ("shape", replay(samples=torch.tensor(1, dtype=torch.uint8))),
    "a head of other features": ("shape", head(mean=torch.ones(7), deviation=torch.ones(7))),
    "a head of other coefficients": ("shape", head(coefficients=torch.ones(9))),
    "a head of nan": ("finite", head(coefficients=torch.full((FOURIER,), torch.nan))),
    "half a head": ("format", bytes_of("taste.safetensors", save({"mean": torch.ones(3)}))),
    "garbage for a head": ("format", bytes_of("taste.safetensors", b"\xff" * 100)),
    "no replay in the replay": ("format", bytes_of("state.safetensors", save({"grades": torch.ones(1)}))),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_what_does_not_fit_is_refused_with_the_reason(adoption: Adoption, files: Files, kind: str) -> None:
    reason, damage = DAMAGES[kind]
    damage(files)
    with pytest.raises(AdapterDamagedError) as error:
        adoption.adopt(files, adoption.denoiser.backbone_hash)
    assert error.value.reason == reason, error.value


def test_the_taste_head_comes_along_and_may_be_missing(adoption: Adoption, adapter: Adapter, files: Files) -> None:
    whole = adoption.adopt(files, adoption.denoiser.backbone_hash).head
    assert whole is not None and adapter.head is not None
    assert torch.equal(whole.coefficients, adapter.head.coefficients)
    del files["taste.safetensors"]
    assert adoption.adopt(files, adoption.denoiser.backbone_hash).head is None


def test_an_empty_replay_is_one(adoption: Adoption, adapter: Adapter, denoiser: Denoiser) -> None:
    nothing = Replay(*(getattr(adapter.replay, name)[:0] for name in ("samples", "grades", "features")))
    files = pack(replace(adapter, replay=nothing), denoiser.layout, CONFIG, Origin(denoiser.backbone_hash, "", 1.0))
    assert len(adoption.adopt(files, denoiser.backbone_hash).replay) == 0
