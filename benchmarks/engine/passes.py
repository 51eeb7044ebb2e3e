"""Forward passes: many users' adapters in one batch against none, and against peft's ways of doing it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from papa_serving.contracts.identity import UserKey
from papa_serving.generator.job import AdapterKey, HostAdapter
from papa_serving.generator.slots import Slots
from torch import Tensor, nn

from benchmarks.engine.paired import Paired, take_turns
from papa.config import DEFAULT_LORA, DEFAULT_UPDATE
from papa.denoiser import Denoiser, load_denoiser
from papa.lora import AdapterLayout
from papa.sampler import sample

DISTINCT = (1, 4, 8, 16, 32, 64)
STEPS, SAMPLER = 12, "dpmpp_2m"


def random_adapters(denoiser: Denoiser, count: int) -> Tensor:
    """Adapters that do something. Shape: [count, P]."""
    generator = torch.Generator().manual_seed(0)
    return 0.05 * torch.randn(count, denoiser.layout.size, generator=generator)


def mixed(denoiser: Denoiser, batch: int, turns: int) -> Paired:
    """Whole trajectories of `batch` rows: by the base, and by 1 … 64 distinct users whose slots are gathered once."""
    table = random_adapters(denoiser, batch)
    slots = Slots(batch, denoiser.layout.size, denoiser.device, torch.float32)
    for index in range(batch):
        key = AdapterKey(UserKey("bench", f"u{index}"), "r")
        slots.acquire(HostAdapter(key, table[index]))

    def users(distinct: int) -> Callable[[], Tensor]:
        order = sorted(1 + index % distinct for index in range(batch))
        return lambda: draw(denoiser, batch, slots.gather(order))

    alternatives = {f"{count} users": users(count) for count in DISTINCT if count <= batch}
    return take_turns({"base": lambda: draw(denoiser, batch, None)} | alternatives, turns)


def draw(denoiser: Denoiser, rows: int, adapters: Tensor | None) -> Tensor:
    """A few-step trajectory of `rows` rows, as the engine runs it (K from the product's default)."""
    return sample(denoiser, list(range(rows)), adapters, SAMPLER, STEPS, DEFAULT_UPDATE.adapt_from)


def precisions(backbone: str, device: str, batch: int, turns: int) -> Paired:
    """One batch of `batch` users, by type of the products and by layout of the convolutions."""
    kinds = {
        f"{name}{', channels last' if last else ''}": load_denoiser(
            backbone, DEFAULT_LORA, device, autocast=autocast, channels_last=last
        )
        for name, autocast in (("float32", None), ("bfloat16", torch.bfloat16))
        for last in (False, True)
    }
    adapters = random_adapters(kinds["float32"], batch).to(device)

    def run(denoiser: Denoiser) -> Callable[[], Tensor]:
        return lambda: draw(denoiser, batch, adapters)

    return take_turns({name: run(denoiser) for name, denoiser in kinds.items()}, turns)


def compiled(backbone: str, device: str, batch: int, turns: int, backend: str = "inductor") -> Paired:
    """One denoising step of `batch` rows of the base: as it is, and with torch.compile.

    Each block by itself and for fixed shapes: with dynamic ones Inductor fails on this U-Net, and with the adapters'
    additions in place for some batches as well (torch 2.13.0, CPU). An engine whose batch changes at every step would
    have to compile for every number of rows.
    """
    plain, fast = (load_denoiser(backbone, DEFAULT_LORA, device) for _ in range(2))
    compile_blocks(fast, backend)
    x = torch.randn(batch, *plain.sample_shape, generator=torch.Generator().manual_seed(0)).to(device)
    t = torch.full((batch,), 700, device=device)

    def run(denoiser: Denoiser) -> Callable[[], Tensor]:
        return torch.no_grad()(lambda: denoiser.epsilon(x, t))

    return take_turns({"eager": run(plain), "compiled": run(fast)}, turns)


def compile_blocks(denoiser: Denoiser, backend: str) -> None:
    """Has every block of a U-Net compiled, each by itself and for the shape that it is called with."""
    for part in ("down_blocks", "mid_block", "up_blocks"):
        module = denoiser.model.get_submodule(part)
        for block in [module] if part == "mid_block" else module.children():
            block.compile(dynamic=False, backend=backend)


def against_peft(backbone: str, users: int, turns: int, autocast: torch.dtype | None) -> Paired:
    """One denoising step for one row of each user: ours in one batch; peft user after user; peft's mixed batch."""
    ours = load_denoiser(backbone, DEFAULT_LORA, autocast=autocast)
    weights = random_adapters(ours, users)
    bare = load_denoiser(backbone, replace(DEFAULT_LORA, targets=("to_q",)), autocast=autocast)
    peft = PeftAdapters(bare.model, ours.layout)
    peft.add(users)
    x = torch.randn(users, *ours.sample_shape, generator=torch.Generator().manual_seed(0))
    t = torch.full((users,), 700)

    @torch.inference_mode()
    def one_batch() -> None:
        ours.epsilon(x, t, weights)

    return take_turns(
        {
            "ours": one_batch,
            "peft, switching": lambda: peft.switching(users, lambda row: bare.epsilon(x[row], t[row])),
            "peft, adapter_names": lambda: peft.by_name(users, lambda: bare.epsilon(x, t)),
        },
        turns,
    )


class PeftAdapters:
    """Adapters of many users in one model by peft, of the rank and on the layers of `layout`."""

    def __init__(self, model: nn.Module, layout: AdapterLayout) -> None:
        self._model, self._layout, self._names = model, layout, list[str]()

    def __len__(self) -> int:
        return len(self._names)

    def add(self, users: int) -> None:
        """Adapters of so many more users, on the model's device."""
        from peft import LoraConfig, inject_adapter_in_model
        from peft.tuners.lora import LoraLayer

        for index in range(len(self), len(self) + users):
            config = LoraConfig(
                r=self._layout.config.rank,
                lora_alpha=int(self._layout.config.alpha),
                target_modules=[layer.name for layer in self._layout.layers],
                init_lora_weights=False,
            )
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Already found a `peft_config`")  # many adapters are what is wanted
                inject_adapter_in_model(config, self._model, adapter_name=f"u{index}")
            self._names.append(f"u{index}")
        self._layers = [module for module in self._model.modules() if isinstance(module, LoraLayer)]

    @torch.inference_mode()
    def switching(self, users: int, row: Callable[[slice], object]) -> None:
        """One row after the other, each after switching to its user's adapter."""
        for index in range(users):
            for layer in self._layers:
                layer.set_adapter(self._names[index])
            row(slice(index, index + 1))

    @torch.inference_mode()
    def by_name(self, users: int, batch: Callable[[], object]) -> None:
        """All rows together. As peft's own forward with adapter_names does, each layer is told which row is whose."""
        names = self._names[:users]

        def told(_module: nn.Module, given: Any, named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            return given, {**named, "adapter_names": names}

        handles = [layer.register_forward_pre_hook(told, with_kwargs=True) for layer in self._layers]
        try:
            batch()
        finally:
            for handle in handles:
                handle.remove()
