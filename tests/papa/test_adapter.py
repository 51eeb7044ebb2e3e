from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load, save

from papa.adapter import Adapter, new_adapter
from papa.config import UpdateConfig
from papa.denoiser import Denoiser
from papa.lora import AdapterLayout
from papa.regions import Regions
from papa.revision_files import (
    HEAD_FILE,
    AdapterDamagedError,
    Origin,
    digest,
    has_head,
    pack,
    unpack,
    unpack_head,
    unpack_weights,
)
from papa.taste import FOURIER
from papa.updating import Labels, update
from tests.papa.support import random_adapters, tiny_denoiser

ORIGIN = Origin("", "", 12.5, events=("e1", "e2"), first_sequence=1, last_sequence=2, seed=7, stats={"loss": 0.5})


@pytest.fixture(scope="module")
def adapter(denoiser: Denoiser) -> Adapter:
    labels = Labels(torch.randint(0, 256, (3, 1, 8, 8), dtype=torch.uint8), torch.tensor([1.0, -1.0, 0.5]))
    config = UpdateConfig(steps=1, like_rows=2, dislike_rows=2)
    trained, _ = update(denoiser, new_adapter(denoiser), labels, config, 0)
    return replace(trained, weights=random_adapters(denoiser, 1)[0])


@pytest.fixture
def files(denoiser: Denoiser, adapter: Adapter) -> dict[str, bytes]:
    return pack(adapter, denoiser.layout, UpdateConfig(), replace(ORIGIN, backbone_hash=denoiser.backbone_hash))


def test_packing_loses_nothing(denoiser: Denoiser, adapter: Adapter, files: dict[str, bytes]) -> None:
    again = unpack(files, denoiser.layout, denoiser.hashes, digest(files["manifest.json"]))
    assert torch.equal(again.weights, adapter.weights)
    assert again.iterate is not None and adapter.iterate is not None
    assert again.head is not None and adapter.head is not None
    for name in ("mean", "deviation", "coefficients"):
        assert torch.equal(getattr(again.head, name), getattr(adapter.head, name))
    assert (again.head.distance, again.head.calibration) == (adapter.head.distance, adapter.head.calibration)
    assert torch.equal(again.iterate, adapter.iterate) and not torch.equal(again.iterate, again.weights)
    for name in ("samples", "grades", "features"):
        assert torch.equal(getattr(again.replay, name), getattr(adapter.replay, name))


def test_the_manifest_tells_where_the_revision_comes_from(denoiser: Denoiser, files: dict[str, bytes]) -> None:
    manifest = json.loads(files["manifest.json"])
    assert manifest["backbone"] == denoiser.backbone_hash
    assert manifest["events"] == ["e1", "e2"]
    assert manifest["stats"] == {"loss": 0.5}
    assert manifest["update"]["adapt_from"] == UpdateConfig().adapt_from
    assert {name: digest(files[name]) for name in manifest["files"]} == {
        name: entry["sha256"] for name, entry in manifest["files"].items()
    }


def test_packing_is_deterministic(denoiser: Denoiser, adapter: Adapter, files: dict[str, bytes]) -> None:
    assert (
        pack(adapter, denoiser.layout, UpdateConfig(), replace(ORIGIN, backbone_hash=denoiser.backbone_hash)) == files
    )


@pytest.mark.parametrize("name", ["manifest.json", "adapter_model.safetensors", "state.safetensors"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "append", "remove"])
def test_every_damage_is_found(denoiser: Denoiser, files: dict[str, bytes], name: str, damage: str) -> None:
    sha256, data = digest(files["manifest.json"]), files[name]
    flipped = data[:-3] + bytes([data[-3] ^ 1]) + data[-2:]
    files[name] = {"flip": flipped, "truncate": data[:-1], "append": data + b"0", "remove": b""}[damage]
    with pytest.raises(AdapterDamagedError) as error:
        unpack(files, denoiser.layout, denoiser.hashes, sha256)
    assert error.value.reason == "checksum"


def _resealed(
    files: dict[str, bytes], tensors: dict[str, torch.Tensor], name: str = "adapter_model.safetensors"
) -> str:
    """Puts other tensors under a manifest that vouches for them, as a buggy trainer would."""
    files[name] = save(tensors)
    manifest = json.loads(files["manifest.json"])
    manifest["files"][name]["sha256"] = digest(files[name])
    files["manifest.json"] = json.dumps(manifest).encode()
    return digest(files["manifest.json"])


@pytest.mark.parametrize(("damage", "reason"), [("shape", "shape"), ("nan", "finite")])
def test_an_iterate_that_does_not_fit_is_refused_under_a_valid_checksum(
    denoiser: Denoiser, files: dict[str, bytes], damage: str, reason: str
) -> None:
    tensors = load(files["state.safetensors"])
    tensors["iterate"] = tensors["iterate"][1:] if damage == "shape" else tensors["iterate"] * float("nan")
    with pytest.raises(AdapterDamagedError) as error:
        unpack(files, denoiser.layout, denoiser.hashes, _resealed(files, tensors, "state.safetensors"))
    assert error.value.reason == reason


def test_values_that_are_not_finite_are_refused_under_a_valid_checksum(
    denoiser: Denoiser, files: dict[str, bytes]
) -> None:
    tensors = load(files["adapter_model.safetensors"])
    next(iter(tensors.values())).view(-1)[0] = float("nan")
    with pytest.raises(AdapterDamagedError, match="finite"):
        unpack_weights(files, denoiser.layout, denoiser.hashes, _resealed(files, tensors))


def test_missing_layers_are_refused(denoiser: Denoiser, files: dict[str, bytes]) -> None:
    tensors = load(files["adapter_model.safetensors"])
    tensors.pop(next(iter(tensors)))
    with pytest.raises(AdapterDamagedError) as error:
        unpack_weights(files, denoiser.layout, denoiser.hashes, _resealed(files, tensors))
    assert error.value.reason == "shape"


def test_another_backbone_is_refused(denoiser: Denoiser, files: dict[str, bytes]) -> None:
    other = tiny_denoiser(seed=9)
    assert other.backbone_hash != denoiser.backbone_hash
    with pytest.raises(AdapterDamagedError) as error:
        unpack_weights(files, other.layout, other.hashes, digest(files["manifest.json"]))
    assert error.value.reason == "backbone"


def test_a_lower_rank_is_padded_and_a_higher_one_refused(denoiser: Denoiser, files: dict[str, bytes]) -> None:
    sha256, x, t = digest(files["manifest.json"]), torch.randn(1, 1, 8, 8), torch.tensor([500])
    wide, narrow = tiny_denoiser(rank=3), tiny_denoiser(rank=1)
    padded = unpack_weights(files, wide.layout, wide.hashes, sha256)
    exact = unpack_weights(files, denoiser.layout, denoiser.hashes, sha256)
    with torch.no_grad():
        torch.testing.assert_close(
            wide.epsilon(x, t, padded[None]), denoiser.epsilon(x, t, exact[None]), atol=1e-5, rtol=1e-4
        )
    with pytest.raises(AdapterDamagedError) as error:
        unpack_weights(files, narrow.layout, narrow.hashes, sha256)
    assert error.value.reason == "shape"


def test_learning_goes_on_from_an_adapter_of_a_lower_rank(
    denoiser: Denoiser, adapter: Adapter, files: dict[str, bytes]
) -> None:
    x, t = torch.randn(1, 1, 8, 8), torch.tensor([500])
    wide = tiny_denoiser(rank=3)
    again = unpack(files, wide.layout, wide.hashes, digest(files["manifest.json"]))
    assert again.iterate is not None and adapter.iterate is not None
    with torch.no_grad():
        torch.testing.assert_close(
            wide.epsilon(x, t, again.iterate[None]), denoiser.epsilon(x, t, adapter.iterate[None]), atol=1e-5, rtol=1e-4
        )
    config = UpdateConfig(steps=1, like_rows=2, dislike_rows=2, averaging=0.0)
    labels = Labels(torch.randint(0, 256, (2, 1, 8, 8), dtype=torch.uint8), torch.tensor([1.0, -1.0]))
    learnt, _ = update(wide, again, labels, config, 1)
    assert learnt.weights.shape == (wide.layout.size,) and not torch.equal(learnt.weights, again.iterate)


@pytest.mark.parametrize("frozen", [True, False])
def test_padding_keeps_what_an_adapter_does_whatever_its_scale(frozen: bool) -> None:
    wide, narrow = tiny_denoiser(rank=3, frozen_a=frozen), tiny_denoiser(rank=1, frozen_a=frozen)
    lower = wide.layout.at_rank(1, narrow.layout.config.alpha)
    assert lower == narrow.layout
    halved = AdapterLayout(replace(lower.config, alpha=lower.config.alpha / 2), lower.layers)
    weights = random_adapters(narrow, 1)[0]
    x, t = torch.randn(1, 1, 8, 8), torch.tensor([500])
    with torch.no_grad():
        before = narrow.epsilon(x, t, weights[None])
        torch.testing.assert_close(
            wide.epsilon(x, t, wide.layout.padded(weights, lower)[None]), before, atol=1e-5, rtol=1e-4
        )
    padded, half = wide.layout.padded(weights, lower), wide.layout.padded(weights, halved)
    for layer in wide.layout.layers:
        torch.testing.assert_close(layer.b(half[None]), layer.b(padded[None]) / 2)


def test_an_adapter_of_the_former_recipe_has_no_head_and_is_read(denoiser: Denoiser, adapter: Adapter) -> None:
    origin = replace(ORIGIN, backbone_hash=denoiser.backbone_hash)
    files = pack(replace(adapter, head=None), denoiser.layout, UpdateConfig(), origin)
    assert HEAD_FILE not in files and not has_head(files["manifest.json"])
    again = unpack(files, denoiser.layout, denoiser.backbone_hash, digest(files["manifest.json"]))
    assert again.head is None


def test_a_head_keeps_what_the_pool_told_it(denoiser: Denoiser, adapter: Adapter) -> None:
    assert adapter.head is not None
    knowing = replace(
        adapter.head,
        labels=31,
        regions=Regions(torch.arange(128.0).view(2, 64)),
        typical_chances=torch.tensor([0.25, 1.0]),
        questions=(2**53 - 2**20, 2**53 - 7),
    )
    origin = replace(ORIGIN, backbone_hash=denoiser.backbone_hash)
    files = pack(replace(adapter, head=knowing), denoiser.layout, UpdateConfig(), origin)
    again = unpack_head(files, digest(files["manifest.json"]))
    assert (again.labels, again.questions) == (31, knowing.questions)
    assert again.regions is not None and again.typical_chances is not None and knowing.regions is not None
    torch.testing.assert_close(again.regions.centres, knowing.regions.centres)
    assert torch.equal(again.typical_chances, torch.tensor([0.25, 1.0]))


def test_a_head_of_before_these_fields_is_read(files: dict[str, bytes]) -> None:
    tensors = load(files[HEAD_FILE])
    former = {name: tensors[name] for name in ("mean", "deviation", "coefficients", "calibration")}
    files[HEAD_FILE] = save(former)
    manifest = json.loads(files["manifest.json"])
    manifest["files"][HEAD_FILE] = {"sha256": digest(files[HEAD_FILE]), "size": len(files[HEAD_FILE])}
    files["manifest.json"] = json.dumps(manifest).encode()
    head = unpack_head(files, digest(files["manifest.json"]))
    assert (head.labels, head.questions, head.regions) == (0, (), None)
    assert head.typical(torch.zeros(2, 64)) is None


def test_an_update_needs_no_head_of_its_parent(denoiser: Denoiser, files: dict[str, bytes]) -> None:
    del files[HEAD_FILE]
    again = unpack(files, denoiser.layout, denoiser.backbone_hash, digest(files["manifest.json"]))
    assert again.head is None and len(again.replay) == 3


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_a_damaged_head_is_found(files: dict[str, bytes], damage: str) -> None:
    whole = files.pop(HEAD_FILE)
    if damage != "remove":
        files[HEAD_FILE] = whole[:-1] + (bytes([whole[-1] ^ 1]) if damage == "flip" else b"")
    with pytest.raises(AdapterDamagedError) as caught:
        unpack_head(files, digest(files["manifest.json"]))
    assert caught.value.reason == "checksum"


BAD_HEADS = {
    "nan": ("finite", {"coefficients": torch.full((FOURIER,), torch.nan)}),
    "a negative slope": ("finite", {"calibration": torch.tensor([1.0, -1.0, 0.0], dtype=torch.float64)}),
    "no distance": ("finite", {"calibration": torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)}),
    "too few coefficients": ("shape", {"coefficients": torch.ones(2)}),
    "whole numbers": ("shape", {"mean": torch.ones(64, dtype=torch.int64)}),
    "no features": ("shape", {"mean": torch.ones(0), "deviation": torch.ones(0)}),
    "a number for many": ("shape", {"mean": torch.tensor(1.0)}),
    "numbers for many": ("shape", {"mean": torch.tensor(1.0), "deviation": torch.tensor(1.0)}),
    "a table": ("shape", {"mean": torch.ones(8, 8), "deviation": torch.ones(8, 8)}),
    "half precision": ("shape", {"coefficients": torch.ones(FOURIER, dtype=torch.float16)}),
    "a calibration in single precision": ("shape", {"calibration": torch.tensor([1.0, 1.0, 0.0])}),
    "no labels": ("shape", {"labels": torch.tensor([0])}),
    "labels that are no number": ("shape", {"labels": torch.tensor([1, 2])}),
    "regions of other features": (
        "shape",
        {"centres": torch.zeros(2, 63, dtype=torch.float16), "typical": torch.ones(2)},
    ),
    "regions of which nothing is typical": ("shape", {"centres": torch.zeros(2, 64, dtype=torch.float16)}),
    "a typical chance of 0": ("shape", {"centres": torch.zeros(1, 64, dtype=torch.float16), "typical": torch.zeros(1)}),
    "regions nowhere": (
        "shape",
        {"centres": torch.full((1, 64), torch.nan, dtype=torch.float16), "typical": torch.ones(1)},
    ),
    "questions below 0": ("shape", {"questions": torch.tensor([-1])}),
    "questions that are no seeds": ("shape", {"questions": torch.tensor([1.5])}),
    "a deviation that lets all else vanish": ("finite", {"mean": torch.ones(64), "deviation": torch.full((64,), 1e-9)}),
}


@pytest.mark.parametrize("kind", BAD_HEADS)
def test_a_head_that_means_nothing_is_refused(files: dict[str, bytes], kind: str) -> None:
    reason, tensors = BAD_HEADS[kind]
    with pytest.raises(AdapterDamagedError) as caught:
        unpack_head(files, _resealed(files, load(files[HEAD_FILE]) | tensors, HEAD_FILE))
    assert caught.value.reason == reason


def test_a_head_of_features_that_do_not_vary_is_one(files: dict[str, bytes]) -> None:
    still = {"mean": torch.ones(64), "deviation": torch.full((64,), 1e-6, dtype=torch.float64).float()}
    assert len(unpack_head(files, _resealed(files, load(files[HEAD_FILE]) | still, HEAD_FILE)).mean) == 64
