"""An adapter as diffusers' pipelines load it: `pipe.load_lora_weights(folder)`.

A revision holds peft's format, whose keys begin with "base_model.model."; diffusers wants "unet." or "transformer."
instead, in one file.
The scale s = alpha / r goes into B, since not every reader looks for alpha beside the weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from safetensors.torch import save

from papa.revision_files import CONFIG_FILE, WEIGHTS_FILE, AdapterDamagedError, read_tensors

DIFFUSERS_FILE = "pytorch_lora_weights.safetensors"
_PEFT = "base_model.model."


_UNET = (f"{_PEFT}down_blocks.", f"{_PEFT}mid_block.", f"{_PEFT}up_blocks.")


def diffusers_lora(files: Mapping[str, bytes]) -> bytes:
    """The content of DIFFUSERS_FILE, from a revision's files. The names of its layers tell a U-Net from a transformer.

    Raises AdapterDamagedError when `files` hold no adapter in peft's format.
    """
    try:
        config, weights = json.loads(files[CONFIG_FILE]), files[WEIGHTS_FILE]
        scale = float(config["lora_alpha"]) / int(config["r"])
    except (KeyError, ValueError, TypeError) as error:
        raise AdapterDamagedError("format", f"no adapter in peft's format: {error!r}") from error
    tensors = read_tensors(weights)
    network = "unet" if any(name.startswith(_UNET) for name in tensors) else "transformer"
    return save(
        {
            f"{network}.{name.removeprefix(_PEFT)}": tensor * scale if ".lora_B." in name else tensor
            for name, tensor in tensors.items()
        },
        metadata={"format": "pt"},
    )
