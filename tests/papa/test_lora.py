from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch import nn

from papa.adapter import Adapter, new_adapter
from papa.config import UpdateConfig
from papa.denoiser import Denoiser
from papa.lora import LayerSlice, LoraConfig, SlotLora
from papa.revision_files import Origin, pack
from tests.papa.support import random_adapters, tiny_denoiser, tiny_unet


def test_one_adapter_equals_peft_which_loads_the_saved_files(denoiser: Denoiser, tmp_path: Path) -> None:
    weights = random_adapters(denoiser, 1)[0]
    adapter = Adapter(weights, new_adapter(denoiser).replay)
    files = pack(adapter, denoiser.layout, UpdateConfig(), Origin(denoiser.backbone_hash, "", 0.0))
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    plain_peft = PeftModel.from_pretrained(tiny_unet(), str(tmp_path)).eval()
    x, t = torch.randn(3, 1, 8, 8), torch.tensor([1, 500, 999])
    with torch.no_grad():
        ours, theirs = denoiser.epsilon(x, t, weights.expand(3, -1)), plain_peft(x, t).sample
        assert (ours - denoiser.epsilon(x, t)).abs().max() > 0.01, (
            "the adapter must matter for the comparison to mean anything"
        )
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_every_row_of_a_mixed_batch_has_its_own_adapter(denoiser: Denoiser) -> None:
    adapters, x, t = random_adapters(denoiser, 4), torch.randn(6, 1, 8, 8), torch.tensor([1, 200, 400, 600, 800, 999])
    with torch.no_grad():
        together = denoiser.epsilon(x, t, adapters)
        for row in range(6):
            alone = denoiser.epsilon(x[row : row + 1], t[row : row + 1], adapters[row : row + 1] if row < 4 else None)
            torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("stride", [1, 2])
def test_linear_and_convolution_equal_an_explicit_weight_merge(frozen: bool, stride: int) -> None:
    model = nn.ModuleDict({"fc": nn.Linear(5, 7), "conv": nn.Conv2d(3, 4, 3, stride=stride, padding=1)})
    lora = SlotLora(model, LoraConfig(rank=2, alpha=6, targets=("fc", "conv"), frozen_a=frozen))
    weights = torch.randn(2, lora.layout.size)
    inputs = {"fc": torch.randn(2, 9, 5), "conv": torch.randn(2, 3, 8, 8)}
    for layer in lora.layout.layers:
        module, x = model[layer.name], inputs[layer.name]
        with lora.rows(weights):
            got = module(x)
            with torch.no_grad():  # in place
                torch.testing.assert_close(module(x), got)
        for row in range(2):
            delta = 3 * torch.einsum("or,r...->o...", layer.b(weights)[row], layer.a(weights)[row])
            merged = torch.func.functional_call(module, {"weight": module.weight + delta}, (x[row : row + 1],))
            torch.testing.assert_close(got[row : row + 1], merged, atol=1e-5, rtol=1e-4)


def test_a_fresh_adapter_changes_nothing(denoiser: Denoiser) -> None:
    fresh = new_adapter(denoiser).weights.expand(2, -1)
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([10, 900])
    with torch.no_grad():
        assert torch.equal(denoiser.epsilon(x, t, fresh), denoiser.epsilon(x, t))


def test_gradients_reach_only_the_adapter_of_their_row() -> None:
    denoiser = tiny_denoiser()
    weights = random_adapters(denoiser, 2).requires_grad_()
    eps = denoiser.epsilon(torch.randn(2, 1, 8, 8), torch.tensor([500, 500]), weights)
    (gradient,) = torch.autograd.grad(eps[0].square().sum(), weights)
    assert gradient[0].abs().max() > 0
    assert gradient[1].abs().max() == 0
    assert all(parameter.grad is None for parameter in denoiser.model.parameters())


def test_a_target_that_matches_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no_such_layer"):
        SlotLora(nn.ModuleDict({"fc": nn.Linear(2, 2)}), LoraConfig(targets=("fc", "no_such_layer")))


def test_widest_adapts_only_the_convolutions_with_the_most_channels() -> None:
    model = nn.ModuleDict({"narrow": nn.Conv2d(2, 4, 3), "wide": nn.Conv2d(4, 8, 3), "fc": nn.Linear(2, 2)})

    def names(widest: bool) -> list[str]:
        config = LoraConfig(targets=("narrow", "wide", "fc"), widest=widest)
        return [layer.name for layer in SlotLora(model, config).layout.layers]

    assert names(widest=True) == ["wide", "fc"]
    assert names(widest=False) == ["narrow", "wide", "fc"]


@pytest.mark.parametrize("frozen", [True, False])
def test_parts_are_the_slices_of_every_layer(frozen: bool) -> None:
    layout = SlotLora(nn.ModuleDict({"a": nn.Linear(2, 3), "b": nn.Conv2d(2, 4, 3)}),
                      LoraConfig(rank=2, targets=("a", "b"), frozen_a=frozen)).layout  # fmt: skip
    weights = torch.randn(3, layout.size)
    for layer, (a, b) in zip(layout.layers, layout.parts(weights), strict=True):
        assert a.numel() == 0 if frozen else torch.equal(a, layer.a(weights))
        assert torch.equal(b, layer.b(weights))


def test_a_frozen_a_is_the_same_in_every_deployment_whatever_its_rank() -> None:
    """A change of these numbers would make every stored adapter unreadable."""

    def layer(rank: int) -> LayerSlice:
        return SlotLora(nn.ModuleDict({"fc": nn.Linear(2, 3)}), LoraConfig(rank=rank, targets=("fc",))).layout.layers[0]

    expected = torch.tensor([[0.69680, 0.56016], [0.52723, -0.52812]])
    torch.testing.assert_close(layer(2).frozen_a(), expected, atol=1e-5, rtol=0)
    assert torch.equal(layer(4).frozen_a()[:2], layer(2).frozen_a())
    assert layer(2).frozen_a().abs().max() <= 2**-0.5
