"""The promotion gate: what passes and what does not."""

import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from papa_serving.settings import GateSettings
from papa_serving.trainer import gate as gate_module
from papa_serving.trainer.gate import Gate, Look
from torch import Tensor

from papa.adapter import Adapter, new_adapter
from papa.config import DEFAULT_LORA, DEFAULT_UPDATE
from papa.denoiser import Denoiser, load_denoiser
from papa.updating import UpdateStats
from tests.trainer.tiny_backbone import SHAPE, write_tiny_backbone

SOUND = UpdateStats(likes=1, dislikes=1, loss_first=0.2, loss_last=0.1, norm=1.0, change=0.1, differentiated=8, plain=8)


@pytest.fixture(scope="module")
def denoiser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Denoiser]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield load_denoiser(str(write_tiny_backbone(tmp_path_factory.mktemp("tiny"))), DEFAULT_LORA)
    torch.set_num_threads(threads)


@pytest.fixture
def adapter(denoiser: Denoiser) -> Adapter:
    return new_adapter(denoiser)


def reasons(gate: Gate, *trained: tuple[Adapter, UpdateStats]) -> list[str]:
    return [verdict.reason if verdict is not None else "" for verdict in gate.judge(list(trained))]


def test_numbers_that_explain_themselves(denoiser: Denoiser, adapter: Adapter) -> None:
    gate = Gate(denoiser, GateSettings(probe_samples=0, max_norm=3.0, max_change=0.5), DEFAULT_UPDATE)
    fresh = denoiser.layout.fresh_norm
    broken = replace(adapter, weights=torch.full_like(adapter.weights, math.nan))
    assert reasons(
        gate,
        (adapter, SOUND),
        (adapter, replace(SOUND, loss_last=math.nan)),
        (adapter, replace(SOUND, loss_first=math.inf)),
        (broken, SOUND),
        (adapter, replace(SOUND, norm=3.1 * fresh)),
        (adapter, replace(SOUND, norm=2.9 * fresh, change=0.6 * fresh)),
        (adapter, replace(SOUND, norm=2.9 * fresh, change=0.4 * fresh)),
    ) == ["", "loss", "loss", "weights", "norm", "change", ""]


def test_the_backbone_itself_passes_the_probe(denoiser: Denoiser, adapter: Adapter) -> None:
    assert reasons(Gate(denoiser, GateSettings(), DEFAULT_UPDATE), (adapter, SOUND), (adapter, SOUND)) == ["", ""]


@pytest.mark.parametrize(
    ("spoilt", "reason"),
    [
        (lambda x: x[:1].expand_as(x), "diversity"),
        (lambda x: 0.1 * x, "diversity"),
        (lambda x: x + 0.9, "pixels"),
        (lambda x: x * math.nan, "pixels"),
        (lambda x: x, ""),
    ],
    ids=["one picture", "one grey", "too bright", "not numbers", "fine"],
)
def test_samples_that_no_taste_explains(
    denoiser: Denoiser, adapter: Adapter, monkeypatch: pytest.MonkeyPatch, spoilt, reason: str
) -> None:
    pictures = 0.5 * torch.randn(8, *SHAPE, generator=torch.Generator().manual_seed(0))

    def sample(denoiser: Denoiser, seeds: list[int], adapters: Tensor | None, *_: object, **__: object) -> Tensor:
        count = len(seeds) // len(pictures)
        return pictures if adapters is None else spoilt(pictures).repeat(count, 1, 1, 1)

    monkeypatch.setattr(gate_module, "sample", sample)
    gate = Gate(denoiser, GateSettings(), DEFAULT_UPDATE)
    assert reasons(gate, (adapter, SOUND), (adapter, SOUND)) == [reason, reason]


def test_each_adapter_is_probed_by_itself(denoiser: Denoiser, adapter: Adapter) -> None:
    """A joint probe gives each adapter what a probe of its own would."""
    other = replace(adapter, weights=adapter.weights + 0.02 * torch.randn_like(adapter.weights))
    gate = Gate(denoiser, GateSettings(), DEFAULT_UPDATE)
    together = gate._probe(torch.stack([adapter.weights, other.weights]), ["", ""])
    alone = [gate._probe(one.weights[None], [""])[0] for one in (adapter, other)]
    for a, b in zip(together, alone, strict=True):
        assert a == Look(*(pytest.approx(value, abs=1e-4) for value in (b.distance, b.mean, b.deviation)))
    assert together[0] != together[1]
