"""Forward passes: many users' adapters in one batch against none, and against peft's ways of doing it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace

import torch
from papa_serving.contracts.identity import UserKey
from papa_serving.generator.job import AdapterKey, HostAdapter
from papa_serving.generator.slots import Slots
from torch import Tensor

from benchmarks.engine.paired import Paired, take_turns
from papa.config import DEFAULT_LORA, DEFAULT_UPDATE
from papa.denoiser import Denoiser, load_denoiser
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
    for part in ("down_blocks", "mid_block", "up_blocks"):
        module = fast.model.get_submodule(part)
        for block in [module] if part == "mid_block" else module.children():
            block.compile(dynamic=False, backend=backend)
    x = torch.randn(batch, *plain.sample_shape, generator=torch.Generator().manual_seed(0)).to(device)
    t = torch.full((batch,), 700, device=device)

    def run(denoiser: Denoiser) -> Callable[[], Tensor]:
        return torch.no_grad()(lambda: denoiser.epsilon(x, t))

    return take_turns({"eager": run(plain), "compiled": run(fast)}, turns)


def against_peft(backbone: str, users: int, turns: int, autocast: torch.dtype | None) -> Paired:
    """One denoising step for one row of each user: ours in one batch; peft user after user; peft's mixed batch."""
    from peft import LoraConfig, inject_adapter_in_model
    from peft.tuners.lora import LoraLayer

    ours = load_denoiser(backbone, DEFAULT_LORA, autocast=autocast)
    weights = random_adapters(ours, users)
    bare = load_denoiser(backbone, replace(DEFAULT_LORA, targets=("to_q",)), autocast=autocast)
    names = [f"u{index}" for index in range(users)]
    for name in names:
        config = LoraConfig(
            r=DEFAULT_LORA.rank,
            lora_alpha=int(DEFAULT_LORA.alpha),
            target_modules=[layer.name for layer in ours.layout.layers],
            init_lora_weights=False,
        )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Already found a `peft_config`")  # many adapters are what is wanted
            inject_adapter_in_model(config, bare.model, adapter_name=name)
    layers = [module for module in bare.model.modules() if isinstance(module, LoraLayer)]
    x = torch.randn(users, *ours.sample_shape, generator=torch.Generator().manual_seed(0))
    t = torch.full((users,), 700)

    @torch.inference_mode()
    def one_batch() -> None:
        ours.epsilon(x, t, weights)

    @torch.inference_mode()
    def switching() -> None:
        for index, name in enumerate(names):
            for layer in layers:
                layer.set_adapter(name)
            bare.epsilon(x[index : index + 1], t[index : index + 1])

    @torch.inference_mode()
    def by_name() -> None:
        handles = [layer.register_forward_pre_hook(_names(names), with_kwargs=True) for layer in layers]
        try:
            bare.epsilon(x, t)
        finally:
            for handle in handles:
                handle.remove()

    return take_turns({"ours": one_batch, "peft, switching": switching, "peft, adapter_names": by_name}, turns)


def _names(names: list[str]) -> Callable[..., tuple[object, dict[str, object]]]:
    """What peft's own forward with adapter_names does: tells every LoRA layer which row is whose."""
    return lambda _module, args, kwargs: (args, {**kwargs, "adapter_names": names})
