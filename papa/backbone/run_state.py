"""The state of a training run on disk: weights, averages, Adam's moments, the step; safetensors and JSON only."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

_RUN = "run.json"


def save_state(
    folder: Path, modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer, record: Mapping[str, Any]
) -> None:
    """Writes the new state beside the old and swaps the folders, so that a kill leaves one whole state."""
    fresh, old = folder.with_name(folder.name + ".new"), folder.with_name(folder.name + ".old")
    for each in (fresh, old):
        shutil.rmtree(each, ignore_errors=True)
    fresh.mkdir(parents=True)
    for name, module in modules.items():
        save_file(
            {key: value.contiguous() for key, value in module.state_dict().items()}, fresh / f"{name}.safetensors"
        )
    moments = optimizer.state_dict()["state"]
    flat = {f"{index}.{name}": value for index, state in moments.items() for name, value in state.items()}
    save_file(flat, fresh / "adam.safetensors")
    (fresh / _RUN).write_text(json.dumps(dict(record)))
    if folder.exists():
        folder.replace(old)
    fresh.replace(folder)


def load_state(
    folder: Path, modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer
) -> Mapping[str, Any] | None:
    """Restores everything in place and returns the record; None if there is no complete state."""
    states = (folder, folder.with_name(folder.name + ".old"))
    found = next((path for path in states if (path / _RUN).is_file()), None)
    if found is None:
        return None
    for name, module in modules.items():
        module.load_state_dict(load_file(found / f"{name}.safetensors"))
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in load_file(found / "adam.safetensors").items():
        index, name = key.split(".")
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    record: Mapping[str, Any] = json.loads((found / _RUN).read_text())
    return record
