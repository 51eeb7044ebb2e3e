"""The parts of a run. Each ends on its own: it begins no further turn once its time is up."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from papa_serving.contracts.identity import UserKey
from papa_serving.generator.engine import Engine, EngineConfig
from papa_serving.generator.job import AdapterKey, HostAdapter
from papa_serving.generator.slots import Slots
from torch import Tensor, nn

from benchmarks.engine.batching import Arrival, Call, compare
from benchmarks.engine.paired import finish, take_turns
from benchmarks.engine.passes import STEPS, PeftAdapters, compile_blocks, draw, random_adapters
from benchmarks.engine.record import percentile
from benchmarks.engine.updates import together, update_jobs
from benchmarks.gpu import models
from papa.config import LATENT_UPDATE, UpdateConfig, update_config
from papa.denoiser import Conditions, Denoiser
from papa.denoiser.networks import text_conditional
from papa.updating import update_many

Figures = dict[str, Any]
MANY = 1_000_000
"""Turns: the time ends a part, not a count."""

TOLERANCES = {"float32": 2e-3, "bfloat16": 5e-2}
"""Largest difference that a mixed batch may make, in standard deviations of ε; float32 allows for TF32 convolutions."""


@dataclass(frozen=True)
class Run:
    """The device and duration of a measurement. `tiny` takes the smallest sizes, which show only that all parts run."""

    device: str
    seconds: float
    tiny: bool
    begun: float = field(default_factory=time.monotonic)

    @property
    def fast(self) -> torch.dtype:
        """The type of a GPU's products."""
        return torch.bfloat16 if self.device.startswith("cuda") else torch.float32

    def until(self, share: float = 1.0) -> float:
        """The end of that share of the time, on the clock of time.monotonic()."""
        return self.begun + share * self.seconds

    def denoiser(self, name: str, dtype: torch.dtype | None = None) -> Denoiser:
        """The named backbone on the device, in the fast type unless told otherwise."""
        return models.denoiser(name, self.device, dtype or self.fast, self.tiny)


def correctness(run: Run) -> Figures:
    """Largest differences between rows of a mixed batch and each row alone, and between updates together and alone.

    Those of a batch are in standard deviations of ε, those of an update relative to how far it moved the adapter.
    """
    checks = {}
    for name in ("shipped", "sd15"):
        for dtype in (torch.float32, torch.bfloat16):
            found = _mixed_difference(run.denoiser(name, dtype))
            kind = str(dtype).removeprefix("torch.")
            checks[f"{name}, {kind}, mixed batch"] = [found, TOLERANCES[kind], found <= TOLERANCES[kind]]
    found = _update_difference(run.denoiser("shipped", torch.float32), _config(run, "shipped"))
    checks["shipped, float32, updates together"] = [found, 0.02, found <= 0.02]
    return {"checks": checks}


@torch.inference_mode()
def _mixed_difference(denoiser: Denoiser, rows: int = 6) -> float:
    """Four rows with an adapter of their own and two without, at different timesteps."""
    adapters = random_adapters(denoiser, rows - 2).to(denoiser.device)
    x, conditions = _noise(denoiser, rows), _conditions(denoiser, rows)
    t = torch.linspace(500, 950, rows, device=denoiser.device).long()
    together = denoiser.epsilon(x, t, adapters, conditions)
    differences = []
    for row in range(rows):
        only = slice(row, row + 1)
        chosen = None if conditions is None else conditions.select(torch.tensor([row]))
        alone = denoiser.epsilon(x[only], t[only], adapters[only] if row < len(adapters) else None, chosen)
        differences.append(float((together[only] - alone).abs().max() / alone.std()))
    return max(differences)


def _update_difference(denoiser: Denoiser, config: UpdateConfig, users: int = 4) -> float:
    jobs = update_jobs(denoiser, users)
    together = update_many(denoiser, jobs, config)
    differences = []
    for job, (adapter, stats) in zip(jobs, together, strict=True):
        ((alone, _),) = update_many(denoiser, [job], config)
        differences.append(float((adapter.weights - alone.weights).norm()) / max(stats.change, 1e-12))
    return max(differences)


def batches(run: Run, name: str) -> Figures:
    """One denoising step of n users: ours in one batch, the base, and peft's two ways of doing it."""
    ours = run.denoiser(name)
    peft, bare = _peft(run, name, ours)
    counts = (1, 2) if run.tiny else (1, 4, 16, 64)
    figures: Figures = {"ratios": {}, "steps": {}, "parameters": sum(p.numel() for p in ours.model.parameters())}
    for number, users in enumerate(counts):
        label = f"{users} users"
        try:
            peft.add(users - len(peft))
            alternatives = _ways(ours, peft, bare, users)
            _reset_memory(run)
            paired = take_turns(alternatives, _turns(run), until=run.until((number + 1) / len(counts)))
        except torch.OutOfMemoryError:
            figures["steps"][label] = "out of memory"
            break
        figures["ratios"] |= {
            f"{label} ÷ {other}": paired.figure("ours", other) for other in paired.seconds if other != "ours"
        }
        figures["steps"][label] = {way: _quantiles(seconds) for way, seconds in paired.seconds.items()}
        figures["steps"][label]["peak memory, GiB"] = _peak(run)
        figures["steps"][label]["rows per second"] = users / _quantiles(paired.seconds["ours"])["p50"]
    return figures


def _ways(
    ours: Denoiser, peft: PeftAdapters, bare: Callable[[Tensor, Tensor, int], object], users: int
) -> dict[str, Callable[[], object]]:
    adapters = random_adapters(ours, users).to(ours.device, ours.dtype)
    x, conditions = _noise(ours, users), _conditions(ours, users)
    t = torch.full((users,), 700, device=ours.device)

    def step(weights: Tensor | None) -> Callable[[], object]:
        return torch.inference_mode()(lambda: ours.epsilon(x, t, weights, conditions))

    return {
        "base": step(None),
        "ours": step(adapters),
        "peft, switching": lambda: peft.switching(users, lambda row: bare(x[row], t[row], 1)),
        "peft, adapter_names": lambda: peft.by_name(users, lambda: bare(x, t, users)),
    }


def _peft(run: Run, name: str, ours: Denoiser) -> tuple[PeftAdapters, Callable[[Tensor, Tensor, int], object]]:
    """A second network of the same size for peft's adapters, and how it is called for so many rows."""
    if name == "shipped":
        other = run.denoiser(name)
        return PeftAdapters(other.model, ours.layout), lambda x, t, rows: other.epsilon(x, t)
    size = (models.TINY if run.tiny else models.PUBLISHED)[name]
    network: nn.Module = models.network(size, run.device, run.fast)
    prompt = models.RandomPrompts(size, run.device, run.fast).parts("")

    def call(x: Tensor, t: Tensor, rows: int) -> Tensor:
        parts = {each: part.expand(rows, *part.shape[1:]) for each, part in prompt.items()}
        return text_conditional(network, x.to(run.fast), t, parts)

    return PeftAdapters(network, ours.layout), call


def updates(run: Run, name: str) -> Figures:
    """Updates of ten labels: many users' in one backward pass against one after another; one until it is served."""
    denoiser, config = run.denoiser(name), _config(run, name)
    figures: Figures = {"ratios": {}, "seconds": {}, "figures": {}}
    try:
        figures["figures"] |= _like_to_served(denoiser, config, run.until(0.2))
        for number, users in enumerate((2,) if run.tiny else (16, 64)):
            _reset_memory(run)
            until = run.until(0.2 + 0.8 * (number + 1) / 2)
            if number and time.monotonic() + users * figures["figures"]["an update, s"] * 2 > until:
                figures["figures"][f"{users} at once"] = "no time left"
                continue
            paired = together(denoiser, users, (users,), MANY if not run.tiny else 1, config, until)
            figures["ratios"][f"{users} at once"] = paired.figure(f"{users} at once", "1 at once")
            figures["seconds"][f"{users} users"] = dict(paired.seconds)
            figures["figures"][f"{users} at once, peak memory, GiB"] = _peak(run)
    except torch.OutOfMemoryError:
        figures["figures"]["out of memory after"] = ", ".join(figures["ratios"]) or "nothing"
    return figures


def _like_to_served(denoiser: Denoiser, config: UpdateConfig, until: float) -> Figures:
    """Seconds of one user's update, and with its way into a slot and the first item that it serves."""
    slots = Slots(1, denoiser.layout.size, denoiser.device, denoiser.dtype)
    updated, served = list[float](), list[float]()
    for number, job in enumerate(update_jobs(denoiser, 20)):
        if number > 1 and time.monotonic() > until:
            break
        begun = time.perf_counter()
        ((adapter, _),) = update_many(denoiser, [job], config)
        finish()
        updated.append(time.perf_counter() - begun)
        key = AdapterKey(UserKey("bench", f"u{number}"), "r")
        slot = slots.acquire(HostAdapter(key, adapter.weights.to("cpu", denoiser.dtype)))
        assert slot is not None
        with torch.inference_mode():
            draw(denoiser, 1, slots.gather([slot]))
        slots.release(key)
        finish()
        served.append(time.perf_counter() - begun)
    # The first call also pays for what is made once.
    return {
        "an update, s": _quantiles(updated[1:] or updated)["p50"],
        "like → served, p50, s": _quantiles(served[1:] or served)["p50"],
        "like → served, p95, s": _quantiles(served[1:] or served)["p95"],
    }


def compilation(run: Run) -> Figures:
    """One denoising step of one batch with adapters: as it is, compiled, and replayed as a CUDA graph."""
    figures: Figures = {"ratios": {}, "steps": {}, "figures": {}}
    names, rows = ("shipped",) if run.tiny else ("shipped", "sd15"), 2 if run.tiny else 16
    for number, name in enumerate(names):
        plain, ways = run.denoiser(name), dict[str, Callable[[], object]]()
        ways["eager"] = _static_step(plain, rows)
        for way, make in (("compiled", _compiled), ("CUDA graph", _graph)):
            try:
                ways[way] = make(run, name, rows)
                ways[way]()
            except Exception as error:  # whatever a compiler or a capture objects to is the figure
                ways.pop(way, None)
                figures["figures"][f"{name}, {way}"] = f"not possible: {type(error).__name__}: {str(error)[:200]}"
        paired = take_turns(ways, _turns(run), until=run.until((number + 1) / len(names)))
        figures["ratios"] |= {f"{name}, {way} ÷ eager": paired.figure(way, "eager") for way in ways if way != "eager"}
        figures["steps"][name] = {way: _quantiles(seconds) for way, seconds in paired.seconds.items()}
    return figures


def _static_step(denoiser: Denoiser, rows: int) -> Callable[[], object]:
    adapters = random_adapters(denoiser, rows).to(denoiser.device, denoiser.dtype)
    x, conditions = _noise(denoiser, rows), _conditions(denoiser, rows)
    t = torch.full((rows,), 700, device=denoiser.device)
    return torch.no_grad()(lambda: denoiser.epsilon(x, t, adapters, conditions))


def _compiled(run: Run, name: str, rows: int) -> Callable[[], object]:
    denoiser = run.denoiser(name)
    compile_blocks(denoiser, "eager" if run.tiny else "inductor")
    return _static_step(denoiser, rows)


def _graph(run: Run, name: str, rows: int) -> Callable[[], object]:
    if not run.device.startswith("cuda"):
        raise RuntimeError("only CUDA has graphs")
    step = _static_step(run.denoiser(name), rows)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def rotation(run: Run) -> Figures:
    """Throughput of the engine with 5 and with 2,000 users whose turn comes round, adapters in host memory."""
    denoiser = run.denoiser("shipped")
    populations, slots = (2, 12) if run.tiny else (5, 2_000), 4 if run.tiny else 64
    table = random_adapters(denoiser, min(64, max(populations))).to(denoiser.dtype)
    worlds = {f"{users} users": _Rotation(denoiser, users, slots, table) for users in populations}
    for world in worlds.values():
        world.engine.start()
    try:
        # Two engines never run at once: one alternative ends before the next begins.
        paired = take_turns({name: world.turn for name, world in worlds.items()}, _turns(run), until=run.until())
    finally:
        for world in worlds.values():
            world.engine.stop()
    few, many = worlds
    return {"ratios": {f"{many} ÷ {few}": paired.figure(many, few)}, "seconds": dict(paired.seconds)}


class _Rotation:
    """An engine of its own, and users who ask for one item each in turn."""

    def __init__(self, denoiser: Denoiser, users: int, slots: int, table: Tensor) -> None:
        held = Slots(slots, denoiser.layout.size, denoiser.device, denoiser.dtype)
        self.engine = Engine(denoiser, held, EngineConfig(slots, 4096, UpdateConfig().adapt_from))
        self._users, self._next, self._at_once = users, 0, slots
        self._adapters = [
            HostAdapter(AdapterKey(UserKey("bench", f"u{user}"), "r"), table[user % len(table)])
            for user in range(users)
        ]

    def turn(self) -> None:
        """The next users, as many as there are slots."""
        numbers = [(self._next + index) % self._users for index in range(self._at_once)]
        self._next = (self._next + self._at_once) % self._users
        calls = [Call(self.engine, Arrival(0.0, user, 1, STEPS), self._adapters[user]) for user in numbers]
        for call in calls:
            call.wait()


def batching(run: Run) -> Figures:
    """Continuous against static batching under Poisson arrivals, from half to 0.85 of what the engine can do."""
    denoiser = run.denoiser("shipped")
    loads = (0.5,) if run.tiny else (0.5, 0.7, 0.85)
    return compare(denoiser, loads, 4.0 if run.tiny else max(1.0, run.seconds / (2.5 * len(loads))))


PARTS: Mapping[str, Callable[[Run], Figures]] = {
    "correctness": correctness,
    "shipped": partial(batches, name="shipped"),
    "sd15": partial(batches, name="sd15"),
    "sdxl": partial(batches, name="sdxl"),
    "updates": partial(updates, name="shipped"),
    "updates-sd15": partial(updates, name="sd15"),
    "updates-sdxl": partial(updates, name="sdxl"),
    "compilation": compilation,
    "rotation": rotation,
    "batching": batching,
}


def _config(run: Run, name: str) -> UpdateConfig:
    config = update_config(pixels=True) if name == "shipped" else LATENT_UPDATE
    return replace(config, steps=1, like_rows=2, dislike_rows=1) if run.tiny else config


def _turns(run: Run) -> int:
    return 2 if run.tiny else MANY


def _noise(denoiser: Denoiser, rows: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(rows, *denoiser.sample_shape, generator=generator).to(denoiser.device)


def _conditions(denoiser: Denoiser, rows: int) -> Conditions | None:
    return denoiser.conditions([""] * rows)


def _quantiles(seconds: list[float]) -> dict[str, float]:
    return {"p50": percentile(seconds, 0.5), "p95": percentile(seconds, 0.95), "n": len(seconds)}


def _reset_memory(run: Run) -> None:
    if run.device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()


def _peak(run: Run) -> float:
    """GiB of the device at most since the last reset; 0 on a CPU."""
    return torch.cuda.max_memory_allocated() / 2**30 if run.device.startswith("cuda") else 0.0
